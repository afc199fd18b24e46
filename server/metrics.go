// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
)

// metrics are what /metrics shows, in Prometheus' form. Names and labels hold nothing that a client chose, so their number is bounded.
type metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	bytes     *prometheus.CounterVec
	inFlight  *prometheus.GaugeVec
	refused   *prometheus.CounterVec
	rules     *prometheus.CounterVec
	decisions *prometheus.CounterVec
	records   *prometheus.CounterVec
	jobs      *prometheus.HistogramVec
	database  *prometheus.HistogramVec
	failures  *prometheus.CounterVec
	panics    prometheus.Counter
}

func newMetrics(version string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "embargo_" + name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "embargo_" + name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	short := prometheus.ExponentialBuckets(0.0001, 4, 9) // 0.1 ms to 6.5 s
	m.requests = counter("http_requests_total", "Requests answered, by door, side (management or data), method and status.", "door", "side", "method", "status")
	m.latency = histogram("http_request_duration_seconds", "Time from a request's header to the end of its answer.", []float64{.001, .005, .02, .1, .5, 2, 10, 60, 600}, "side", "method")
	m.bytes = counter("http_bytes_total", "Bytes of bodies, by door, side and direction (received or sent).", "door", "side", "direction")
	m.refused = counter("connections_refused_total", "Connections closed before they were served, by the reason.", "door", "reason")
	m.rules = counter("network_refusals_total", "Connections and requests refused before anyone asked whose they are, by rule.", "rule")
	m.decisions = counter("decisions_total", "Decisions of the gate and what became of them, by route and outcome.", "route", "outcome")
	m.records = counter("audit_records_total", "Records written to the audit, by kind.", "kind")
	m.jobs = histogram("job_duration_seconds", "Attempts of jobs, by kind and the status that they ended with (Accepted: tried again).", []float64{.01, .1, 1, 10, 100, 1000}, "kind", "status")
	m.database = histogram("database_transaction_duration_seconds", "Transactions, waiting included.", short, "op")
	m.failures = counter("database_failures_total", "Transactions that the database failed, by op.", "op")
	m.failures.WithLabelValues("read") // from zero on, so that the first failure is an increase
	m.failures.WithLabelValues("write")
	m.inFlight = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "embargo_http_requests_in_flight", Help: "Requests being answered."}, []string{"door"})
	m.panics = prometheus.NewCounter(prometheus.CounterOpts{Name: "embargo_panics_total", Help: "Requests that were answered 500 because of a panic; the log has each."})
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "embargo_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()}})
	build.Set(1)
	m.registry.MustRegister(m.inFlight, m.panics, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// known keeps labels to methods that there are.
func known(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

func (m *metrics) request(door, side, method string, status int, received, sent int64, took time.Duration) {
	method = known(method)
	m.requests.WithLabelValues(door, side, method, strconv.Itoa(status)).Inc()
	m.latency.WithLabelValues(side, method).Observe(took.Seconds())
	m.bytes.WithLabelValues(door, side, "received").Add(float64(received))
	m.bytes.WithLabelValues(door, side, "sent").Add(float64(sent))
}

func (m *metrics) record(r audit.Record) {
	m.records.WithLabelValues(string(r.Kind)).Inc()
	if r.Route != "" {
		m.decisions.WithLabelValues(r.Route, string(r.Outcome)).Add(float64(max(r.Count, 1)))
	}
}

func (m *metrics) job(kind string, s job.Status, took time.Duration) {
	m.jobs.WithLabelValues(kind, string(s)).Observe(took.Seconds())
}

func (m *metrics) transaction(op string, took time.Duration, failed bool) {
	m.database.WithLabelValues(op).Observe(took.Seconds())
	if failed {
		m.failures.WithLabelValues(op).Inc()
	}
}

// gauges are what is looked up when somebody asks.
type gauges struct{ s *Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("embargo_"+name, help, labels, nil)
}

var (
	descReady       = desc("ready", "1 when the check passes.", "check")
	descConnections = desc("connections", "Connections open, by door.", "door")
	descEndpoints   = desc("endpoint_doors", "Doors of private endpoints, by whether they could be opened.", "state")
	descDisk        = desc("disk_bytes", "The file system of the data directory.", "what")
	descContent     = desc("content_bytes", "What the objects take in the storage, each once: used, unused (a collection will remove it), and uploads under way.", "what")
	descDamaged     = desc("content_damaged", "Objects that a scrub has found damaged, and nobody has pushed again.")
	descJobs        = desc("jobs", "Jobs that wait or run.", "status")
	descAudit       = desc("audit_waiting", "Records that wait to be written.")
	descRegistries  = desc("registries", "Registries, by what their export policy is in force.", "exports")
	descHeld        = desc("held", "1 while a restored copy waits for an owner's confirmation.")
	descPool        = desc("database_connections", "Connections to the database.", "state")
	descAuthority   = desc("authority_expiry_seconds", "When the certificate authority's certificate ends, in seconds since 1970.")
)

// Describe says nothing: what is collected is checked when it comes.
func (g gauges) Describe(chan<- *prometheus.Desc) {}

// Collect looks everything up.
func (g gauges) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	findings, ready := g.s.rooms.ready.look(ctx)
	gauge(descReady, truth(ready), "all")
	for _, f := range findings {
		gauge(descReady, truth(f.OK), f.Name)
	}
	open := map[string]int64{} // a registry may have several listeners
	for _, l := range g.s.doorsNow() {
		open[label(l.door.Zone())] += l.door.Open()
	}
	for door, n := range open {
		gauge(descConnections, float64(n), door)
	}
	opened, failed := g.s.endpointDoorsCount()
	gauge(descEndpoints, float64(opened), "open")
	gauge(descEndpoints, float64(failed), "failed")
	if free, total, err := diskSpace(g.s.o.Data); err == nil {
		gauge(descDisk, float64(free), "free")
		gauge(descDisk, float64(total), "total")
	}
	gauge(descAudit, float64(g.s.rooms.audit.Waiting()))
	gauge(descAuthority, float64(g.s.ca.Until().Unix()))
	pool := g.s.db.Stats()
	gauge(descPool, float64(pool.InUse), "in use")
	gauge(descPool, float64(pool.Idle), "idle")
	st, err := g.s.stock(ctx)
	if err != nil {
		return // readiness says that the database does not answer
	}
	gauge(descRegistries, float64(st.enabled), "enabled")
	gauge(descRegistries, float64(st.disabled), "disabled")
	gauge(descContent, float64(st.space.Bytes-st.space.Unused), "used")
	gauge(descContent, float64(st.space.Unused), "unused")
	gauge(descContent, float64(st.space.UploadBytes), "uploads")
	gauge(descDamaged, float64(st.space.Damaged))
	gauge(descHeld, truth(st.hold.Why != ""))
	for _, s := range []job.Status{job.Accepted, job.Running} {
		gauge(descJobs, float64(st.jobs[s]), string(s))
	}
}

// stock is what the database holds, counted.
type stock struct {
	enabled, disabled int
	hold              egress.Hold
	jobs              map[job.Status]int64
	space             blob.Space
}

func (s *Server) stock(ctx context.Context) (stock, error) {
	var st stock
	held, err := s.rooms.gate.Held(ctx)
	if err != nil {
		return st, err
	}
	st.hold = held
	return st, s.db.Read(ctx, func(tx *meta.Tx) error {
		st.enabled, st.disabled = 0, 0
		rows, err := tx.Registries()
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.Exports {
				st.enabled++
			} else {
				st.disabled++
			}
		}
		if st.space, err = blob.Taken(tx); err != nil {
			return err
		}
		st.jobs, err = job.Count(tx, tx.Now().Add(-24*time.Hour))
		return err
	})
}
