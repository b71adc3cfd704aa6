package proxy

import (
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
