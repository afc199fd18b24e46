// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The tracer is this test binary in a process of its own. It holds the server by ptrace and lets one system call fail as the kernel would. (strace counts the calls of each thread for
// itself, and Go moves work between threads: it can't say "the third fsync of this request".)
const (
	tracerPID    = "EMBARGO_CRASH_TRACE_PID"    // the server
	tracerRoot   = "EMBARGO_CRASH_TRACE_ROOT"   // only files below it count
	tracerMark   = "EMBARGO_CRASH_TRACE_MARK"   // a file that names the request under way
	tracerTarget = "EMBARGO_CRASH_TRACE_TARGET" // the step that fails, as step.String gives it; "" lets all pass
	tracerFault  = "EMBARGO_CRASH_TRACE_FAULT"  // EIO, ENOSPC or KILL
)

func TestMain(m *testing.M) {
	if pid := os.Getenv(tracerPID); pid != "" {
		signal.Ignore(syscall.SIGPIPE)
		fmt.Fprintln(os.Stderr, trace(pid))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type tracer struct {
	pid     int
	root    string
	memory  *os.File
	target  string
	fault   string
	counted map[string]int
	// failing is the threads whose call was taken from them, and what it answers.
	failing map[int]syscall.Errno
}

// trace holds the process until it ends, and prints its steps.
func trace(pid string) error {
	runtime.LockOSThread() // ptrace belongs to a thread
	n, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	t := &tracer{pid: n, root: os.Getenv(tracerRoot) + "/", target: os.Getenv(tracerTarget), fault: os.Getenv(tracerFault),
		counted: map[string]int{}, failing: map[int]syscall.Errno{}}
	if t.memory, err = os.Open(fmt.Sprintf("/proc/%d/mem", n)); err == nil {
		err = t.seize()
	}
	if err != nil {
		return err
	}
	fmt.Println("attached")
	for {
		var ws syscall.WaitStatus
		tid, err := syscall.Wait4(-1, &ws, syscall.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return nil // nobody is left
		case ws.Stopped():
			if err := t.stopped(tid, ws); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
}

// seize takes all threads, those that are made meanwhile too.
func (t *tracer) seize() error {
	seized := map[string]bool{}
	for {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", t.pid))
		if err != nil {
			return err
		}
		fresh := 0
		for _, path := range threads {
			tid, err := strconv.Atoi(filepath.Base(path))
			if err != nil || seized[path] {
				continue
			}
			seized[path] = true
			fresh++
			_, _, no := syscall.RawSyscall6(syscall.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(tid), 0, syscall.PTRACE_O_TRACESYSGOOD|syscall.PTRACE_O_TRACECLONE, 0, 0)
			if no == syscall.ESRCH || no == syscall.EPERM && len(seized) > 1 {
				continue // it has ended, or its maker was held already, and it with it
			}
			if no != 0 {
				return fmt.Errorf("ptrace may not hold the server (%w): this test needs root", no)
			}
			if _, _, no := syscall.RawSyscall6(syscall.SYS_PTRACE, unix.PTRACE_INTERRUPT, uintptr(tid), 0, 0, 0, 0); no != 0 && no != syscall.ESRCH {
				return no
			}
		}
		if fresh == 0 {
			return nil
		}
	}
}

// stopped handles one stop of a thread and lets it go on.
func (t *tracer) stopped(tid int, ws syscall.WaitStatus) error {
	sig := ws.StopSignal()
	switch {
	case sig == syscall.SIGTRAP|0x80:
		if err := t.call(tid); err != nil {
			return err
		}
		sig = 0
	case int(ws)>>16 != 0: // an event of ptrace's own
		sig = 0
	}
	return syscall.PtraceSyscall(tid, int(sig))
}

// callInfo is the head of ptrace_syscall_info.
type callInfo struct {
	op     uint8
	_      [3]uint8
	_      uint32
	ip, sp uint64
	nr     uint64
	args   [6]uint64
	_      [8]byte
}

// call looks at a thread that enters or leaves a system call.
func (t *tracer) call(tid int) error {
	var info callInfo
	_, _, no := syscall.RawSyscall6(syscall.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if no != 0 {
		return no
	}
	const entry, exit = 1, 2
	if answer, failing := t.failing[tid]; failing && info.op == exit {
		delete(t.failing, tid)
		return t.set(tid, func(r *syscall.PtraceRegs) { r.Rax = uint64(-int64(answer)) })
	}
	if info.op != entry {
		return nil
	}
	s, ok := t.step(info)
	if !ok {
		return nil
	}
	hit := s.String() == t.target
	fmt.Printf("%s\t%s\t%d\t%t\n", s, s.path, s.offset, hit)
	if !hit {
		return nil
	}
	no = map[string]syscall.Errno{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC}[t.fault]
	if no == 0 {
		return syscall.Kill(t.pid, syscall.SIGKILL)
	}
	t.failing[tid] = no
	return t.set(tid, func(r *syscall.PtraceRegs) { r.Orig_rax = ^uint64(0) })
}

func (t *tracer) set(tid int, change func(r *syscall.PtraceRegs)) error {
	var r syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	change(&r)
	return syscall.PtraceSetRegs(tid, &r)
}

// step is a system call that writes: of a request of the story, by name, on a kind of file, the nth of these.
type step struct {
	request, name, kind string
	n                   int
	path                string
	offset              int64
}

func (s step) String() string { return fmt.Sprintf("%s %s %s %d", s.request, s.name, s.kind, s.n) }

// step tells whether a call writes below the root, and which step it is.
func (t *tracer) step(c callInfo) (step, bool) {
	form, ok := writing[c.nr]
	if !ok || form.creates >= 0 && c.args[form.creates]&syscall.O_CREAT == 0 {
		return step{}, false
	}
	path := ""
	if form.fd {
		path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", t.pid, int32(c.args[form.at])))
	} else {
		path = t.text(c.args[form.at])
	}
	if !strings.HasPrefix(path, t.root) {
		return step{}, false
	}
	mark, _ := os.ReadFile(os.Getenv(tracerMark)) // "" before the story
	s := step{request: string(mark), name: form.name, kind: kindOf(strings.TrimPrefix(path, t.root)), path: path}
	if form.name == "pwrite64" {
		s.offset = int64(c.args[3])
	}
	key := s.String()
	t.counted[key]++
	s.n = t.counted[key]
	return s, true
}

// text is the C string at an address of the server.
func (t *tracer) text(at uint64) string {
	b := make([]byte, 512)
	n, _ := t.memory.ReadAt(b, int64(at)) // a page less is enough
	s, _, _ := strings.Cut(string(b[:n]), "\x00")
	return s
}

// kindOf names a file of the data directory by what it is, not by which.
func kindOf(path string) string {
	dir, name := filepath.Split(path)
	switch {
	case strings.HasPrefix(path, "blobs/") && len(name) == 32:
		return "object"
	case strings.HasPrefix(path, "blobs/"):
		return "folder"
	case strings.HasPrefix(name, ".writing-"):
		return dir + ".writing"
	}
	return path
}

// form is where a call has its file: the argument at is a descriptor (fd) or a path; creates is the argument whose O_CREAT makes it a writing call, -1 when it is one always.
type form struct {
	name    string
	at      int
	fd      bool
	creates int
}

var writing = map[uint64]form{
	syscall.SYS_OPEN: {"open", 0, false, 1}, syscall.SYS_OPENAT: {"open", 1, false, 2},
	syscall.SYS_WRITE: {"write", 0, true, -1}, syscall.SYS_PWRITE64: {"pwrite64", 0, true, -1}, syscall.SYS_WRITEV: {"writev", 0, true, -1}, syscall.SYS_PWRITEV: {"pwritev", 0, true, -1},
	syscall.SYS_FSYNC: {"fsync", 0, true, -1}, syscall.SYS_FDATASYNC: {"fdatasync", 0, true, -1},
	syscall.SYS_FTRUNCATE: {"ftruncate", 0, true, -1}, syscall.SYS_TRUNCATE: {"truncate", 0, false, -1}, syscall.SYS_FALLOCATE: {"fallocate", 0, true, -1},
	syscall.SYS_RENAME: {"rename", 0, false, -1}, syscall.SYS_RENAMEAT: {"rename", 1, false, -1}, unix.SYS_RENAMEAT2: {"rename", 1, false, -1},
	syscall.SYS_LINK: {"link", 0, false, -1}, syscall.SYS_LINKAT: {"link", 1, false, -1},
	syscall.SYS_UNLINK: {"unlink", 0, false, -1}, syscall.SYS_UNLINKAT: {"unlink", 1, false, -1},
	syscall.SYS_MKDIR: {"mkdir", 0, false, -1}, syscall.SYS_MKDIRAT: {"mkdir", 1, false, -1},
	syscall.SYS_CHMOD: {"chmod", 0, false, -1}, syscall.SYS_FCHMOD: {"fchmod", 0, true, -1}, syscall.SYS_FCHMODAT: {"chmod", 1, false, -1},
}
