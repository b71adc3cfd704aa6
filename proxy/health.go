package proxy

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Whether the proxy can do what it is there for, for those who watch it: at /health beside
// the figures, and among them. It names nobody.
//
// That limits.sessions is reached is not among the causes: who restarts what is not well
// would end everybody's session because of a flood.

// An illness is why the proxy is not well.
type illness string

const (
	illListening illness = "not-accepting"      // an address is not listened on, or accepting fails
	illState     illness = "state-not-writable" // the disk is full, or the directory has gone
	illLocked    illness = "keys-locked"        // nobody has given the passphrase
)

var illnesses = []illness{illListening, illState, illLocked}

// health answers those who watch.
func health(w http.ResponseWriter, r *http.Request, ills []illness) {
	answer := struct {
		Status string    `json:"status"`
		Causes []illness `json:"causes,omitempty"`
	}{"ok", ills}
	status := http.StatusOK
	if len(answer.Causes) > 0 {
		answer.Status, status = "not well", http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		json.NewEncoder(w).Encode(answer)
	}
}

// A listener knows whether somebody accepts from it, with success.
type listener struct {
	net.Listener
	serving atomic.Bool
	failed  atomic.Int64 // when it failed last, in nanoseconds
}

// acceptPause is longer than accept waits before it tries again.
const acceptPause = 2 * time.Second

func (l *listener) Accept() (net.Conn, error) {
	l.serving.Store(true)
	c, err := l.Listener.Accept()
	if err != nil {
		l.failed.Store(time.Now().UnixNano())
	}
	return c, err
}

// accepting reports whether the door is open, at all of its addresses.
func (dr *door) accepting() bool {
	dr.mu.Lock()
	defer dr.mu.Unlock()
	return len(dr.listeners) > 0 && !slices.ContainsFunc(dr.listeners, func(l *listener) bool { return !l.accepts() })
}

func (l *listener) accepts() bool {
	failed := l.failed.Load()
	return l.serving.Load() && (failed == 0 || time.Since(time.Unix(0, failed)) > acceptPause)
}

// A disk is tried no more than once in a while, however many ask.
type disk struct {
	mu    sync.Mutex
	tried time.Time
	well  bool
}

const (
	diskPause = time.Second
	diskBlock = 4096 // bytes: an empty file can be made on a full disk
)

func (d *disk) writable(dir string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.tried) > diskPause {
		d.tried, d.well = time.Now(), canWrite(dir)
	}
	return d.well
}

func canWrite(dir string) bool {
	f, err := os.CreateTemp(dir, ".health-")
	if err != nil {
		return false
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, diskBlock))
	return f.Close() == nil && err == nil
}
