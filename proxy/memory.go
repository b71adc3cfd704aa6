package proxy

import (
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync"
	"time"
)

// memory watches what the process holds: from limits.memory on nobody else is let in, and
// nothing more is held. Those who are there go on.
type memory struct {
	limit func() int // bytes

	mu    sync.Mutex
	until time.Time // for which the answer holds
	short bool
}

const memoryGlance = 100 * time.Millisecond

// A calm gives back to the system what logins and their ends have needed, once there was none
// for a while: the collector would do so hours later where nothing happens.
type calm struct {
	mu    sync.Mutex
	timer *time.Timer
}

// calmAfter is how long nobody has come or gone then.
const calmAfter = time.Minute

// broken notes that somebody comes or goes.
func (c *calm) broken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer == nil {
		c.timer = time.AfterFunc(calmAfter, debug.FreeOSMemory)
		return
	}
	c.timer.Reset(calmAfter)
}

// end has nothing given back any more.
func (c *calm) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
}

// tight reports whether memory is short.
func (m *memory) tight() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); !now.Before(m.until) {
		sample := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
		runtimemetrics.Read(sample)
		m.short = sample[0].Value.Uint64()+sample[1].Value.Uint64() > uint64(m.limit())
		m.until = now.Add(memoryGlance)
	}
	return m.short
}
