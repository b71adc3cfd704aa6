package listen

import (
	"net"
	"slices"
	"sync/atomic"
	"time"
)

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

// Accepting reports whether the door is open, at all of its addresses.
func (dr *Door) Accepting() bool {
	dr.mu.Lock()
	defer dr.mu.Unlock()
	return len(dr.listeners) > 0 && !slices.ContainsFunc(dr.listeners, func(l *listener) bool { return !l.accepts() })
}

func (l *listener) accepts() bool {
	failed := l.failed.Load()
	return l.serving.Load() && (failed == 0 || time.Since(time.Unix(0, failed)) > acceptPause)
}
