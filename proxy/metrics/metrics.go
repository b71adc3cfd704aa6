package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"otrproxy/otrlayer"
	"otrproxy/proxy/causes"
)

// A Direction is a stanza's, as the index of a counter.
type Direction uint8

// A Kind is a stanza's, so.
type Kind uint8

// An Action is what was done with a stanza, so.
type Action uint8

// The directions.
const (
	Out Direction = iota // from the client
	In                   // from the server
)

// The kinds.
const (
	Message Kind = iota
	Presence
	IQ
)

// The actions.
const (
	Passed Action = iota
	Encrypted
	Decrypted
	Held
	Blocked
	Swallowed
)

var (
	directions = []string{"out", "in"}
	kinds      = []string{"message", "presence", "iq"}
	actions    = []string{"passed", "encrypted", "decrypted", "held", "blocked", "swallowed"}
	handshakes = []string{"complete", "failed", "refused"}
)

// Metrics are the figures of one proxy. No label holds a JID, and every series of
// a closed set is there from the start.
type Metrics struct {
	registry  *prometheus.Registry
	stanzas   [2][3][6]prometheus.Counter
	seconds   *durations
	blockedBy map[otrlayer.Cause]prometheus.Counter
	failures  map[causes.Cause]prometheus.Counter
	shakes    map[string]prometheus.Counter
	refusals  map[causes.Refusal]prometheus.Counter
	*figures
}

// New has a counter of each of the events. Now is asked how things stand when somebody looks.
func New(version string, events []string, now func() Snapshot) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), blockedBy: map[otrlayer.Cause]prometheus.Counter{}, failures: map[causes.Cause]prometheus.Counter{}, shakes: map[string]prometheus.Counter{}, refusals: map[causes.Refusal]prometheus.Counter{}, figures: newFigures(events)}
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
	for _, c := range causes.Causes {
		m.failures[c] = failures.WithLabelValues(string(c))
	}
	shakes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "otrproxy_handshakes_total", Help: "OTR key exchanges by result."}, []string{"result"})
	for _, r := range handshakes {
		m.shakes[r] = shakes.WithLabelValues(r)
	}
	refusedTotal := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "otrproxy_refused_total", Help: "Clients sent away, or made to wait, by cause."}, []string{"cause"})
	for _, c := range causes.Refusals {
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

// Count counts a stanza.
func (m *Metrics) Count(d Direction, k Kind, a Action) { m.stanzas[d][k][a].Inc() }

// Took notes how long a stanza has taken.
func (m *Metrics) Took(d time.Duration) { m.seconds.observe(d) }

// UpstreamFailed counts a connection to a server that was not made, or was lost.
func (m *Metrics) UpstreamFailed(c causes.Cause) { m.failures[c].Inc() }

// Handshake counts a key exchange by its result.
func (m *Metrics) Handshake(result string) { m.shakes[result].Inc() }

// Refused counts a client that was sent away, or made to wait.
func (m *Metrics) Refused(c causes.Refusal) { m.refusals[c].Inc() }

// Blocked counts a message that was not sent.
func (m *Metrics) Blocked(c otrlayer.Cause) {
	if counter := m.blockedBy[c]; counter != nil {
		counter.Inc()
	}
}

// Handler serves the figures in Prometheus' format, and whether the proxy is well.
func (m *Metrics) Handler(ills func() []Illness) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) { health(w, r, ills()) })
	return mux
}
