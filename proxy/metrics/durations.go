package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// durations is the histogram of how long stanzas take. It costs two additions a stanza.
type durations struct {
	counts [len(durationBounds) + 1]atomic.Uint64 // by the first bound that is not exceeded
	sum    atomic.Uint64                          // nanoseconds
}

var durationBounds = [...]time.Duration{1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6, 1e7, 1e8, 1e9}

var secondsDesc = prometheus.NewDesc("otrproxy_stanza_seconds", "Time a stanza spends inside the proxy.", nil, nil)

func (h *durations) observe(d time.Duration) {
	i := 0
	for i < len(durationBounds) && d > durationBounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(uint64(max(d, 0)))
}

func (h *durations) Describe(ch chan<- *prometheus.Desc) { ch <- secondsDesc }

func (h *durations) Collect(ch chan<- prometheus.Metric) {
	buckets, n := map[float64]uint64{}, uint64(0)
	for i := range h.counts {
		if n += h.counts[i].Load(); i < len(durationBounds) {
			buckets[durationBounds[i].Seconds()] = n
		}
	}
	ch <- prometheus.MustNewConstHistogram(secondsDesc, n, float64(h.sum.Load())/1e9, buckets)
}
