package listen

import (
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync"
	"time"
)

// Memory watches what the process holds: from limits.memory on nobody else is let in, and
// nothing more is held. Those who are there go on.
type Memory struct {
	Limit func() int // bytes

	mu    sync.Mutex
	until time.Time // for which the answer holds
	short bool
}

const memoryGlance = 100 * time.Millisecond

// A Calm gives back to the system what logins and their ends have needed, once there was none
// for a while: the collector would do so hours later where nothing happens.
type Calm struct {
	mu    sync.Mutex
	timer *time.Timer
}

// calmAfter is how long nobody has come or gone then.
const calmAfter = time.Minute

// broken notes that somebody comes or goes.
func (c *Calm) broken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer == nil {
		c.timer = time.AfterFunc(calmAfter, debug.FreeOSMemory)
		return
	}
	c.timer.Reset(calmAfter)
}

// End has nothing given back any more.
func (c *Calm) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
}

// Tight reports whether memory is short.
func (m *Memory) Tight() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); !now.Before(m.until) {
		sample := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
		runtimemetrics.Read(sample)
		m.short = sample[0].Value.Uint64()+sample[1].Value.Uint64() > uint64(m.Limit())
		m.until = now.Add(memoryGlance)
	}
	return m.short
}
