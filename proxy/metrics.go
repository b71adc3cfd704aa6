package proxy

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"otrproxy/otrlayer"
)

// Directions, kinds and actions of stanzas, as indices of counters.
type (
	direction uint8
	kind      uint8
	action    uint8
)

const (
	out direction = iota // from the client
	in                   // from the server
)

const (
	message kind = iota
	presence
	iq
)

const (
	passed action = iota
	encrypted
	decrypted
	held
	blocked
	swallowed
)

var (
	directions = []string{"out", "in"}
	kinds      = []string{"message", "presence", "iq"}
	actions    = []string{"passed", "encrypted", "decrypted", "held", "blocked", "swallowed"}
	handshakes = []string{"complete", "failed", "refused"}
)

// metrics are the figures of one proxy. No label holds a JID, and every series of
// a closed set is there from the start.
type metrics struct {
	registry  *prometheus.Registry
	stanzas   [2][3][6]prometheus.Counter
	seconds   *durations
	blockedBy map[otrlayer.Cause]prometheus.Counter
	failures  map[FailureCause]prometheus.Counter
	shakes    map[string]prometheus.Counter
	refusals  map[RefusedCause]prometheus.Counter
	*figures
}

func newMetrics(version string, events []string, now func() snapshot) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), blockedBy: map[otrlayer.Cause]prometheus.Counter{}, failures: map[FailureCause]prometheus.Counter{}, shakes: map[string]prometheus.Counter{}, refusals: map[RefusedCause]prometheus.Counter{}, figures: newFigures(events)}
	stanzas := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "otrproxy_stanzas_total", Help: "Stanzas by direction (out: from the client), kind and what was done with them."}, []string{"direction", "kind", "action"})
	for d, dn := range directions {
		for k, kn := range kinds {
			for a, an := range actions {
				m.stanzas[d][k][a] = stanzas.WithLabelValues(dn, kn, an)
			}
		}
	}
	blockedTotal := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "otrproxy_blocked_total", Help: "Messages not sent, by cause."}, []string{"cause"})
	for _, c := range otrlayer.Causes {
		m.blockedBy[c] = blockedTotal.WithLabelValues(string(c))
	}
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "otrproxy_upstream_failures_total", Help: "Connections to servers that were not made or were lost, by cause."}, []string{"cause"})
	for _, c := range failureCauses {
		m.failures[c] = failures.WithLabelValues(string(c))
	}
	shakes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "otrproxy_handshakes_total", Help: "OTR key exchanges by result."}, []string{"result"})
	for _, r := range handshakes {
		m.shakes[r] = shakes.WithLabelValues(r)
	}
	refusedTotal := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "otrproxy_refused_total", Help: "Clients sent away, or made to wait, by cause."}, []string{"cause"})
	for _, c := range refusedCauses {
		m.refusals[c] = refusedTotal.WithLabelValues(string(c))
	}
	m.seconds = &durations{}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "otrproxy_build_info", Help: "Always 1; the label says which version.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.registry.MustRegister(stanzas, blockedTotal, failures, shakes, refusedTotal, m.seconds, build, live{now},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(m.collected...)
	return m
}

func (m *metrics) count(d direction, k kind, a action) { m.stanzas[d][k][a].Inc() }
func (m *metrics) took(d time.Duration)                { m.seconds.observe(d) }
func (m *metrics) upstreamFailed(c FailureCause)       { m.failures[c].Inc() }
func (m *metrics) handshake(result string)             { m.shakes[result].Inc() }
func (m *metrics) refused(c RefusedCause)              { m.refusals[c].Inc() }

func (m *metrics) blocked(c otrlayer.Cause) {
	if counter := m.blockedBy[c]; counter != nil {
		counter.Inc()
	}
}

// handler serves the figures in Prometheus' format, and whether the proxy is well.
func (m *metrics) handler(ills func() []illness) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) { health(w, r, ills()) })
	return mux
}
