package proxy

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Figures by which a household sees how its proxy does: who comes and how, what waits and
// for how long, what ends. No label names anybody, nor a domain.

// figures are those beside the stanzas' own.
type figures struct {
	sessions  map[string]prometheus.Counter // by entry
	lasted    prometheus.Histogram
	events    map[string]prometheus.Counter
	notified  map[notifyResult]prometheus.Counter
	resumed   map[bool]prometheus.Counter
	collected []prometheus.Collector
}

// entries are the ways to come in.
var entries = []string{"plain", "starttls", "direct", "websocket", "socks5 plain", "socks5 starttls", "socks5 direct", "socks5 websocket"}

// A notifyResult is what became of running the command of "notify".
type notifyResult string

const (
	notifyDone    notifyResult = "done"
	notifyFailed  notifyResult = "failed"
	notifyDropped notifyResult = "dropped" // more happened than it was run for
)

func newFigures() *figures {
	f := &figures{sessions: map[string]prometheus.Counter{}, events: map[string]prometheus.Counter{}, notified: map[notifyResult]prometheus.Counter{}, resumed: map[bool]prometheus.Counter{}}
	vec := func(name, help, label string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		f.collected = append(f.collected, v)
		return v
	}
	sessions := vec("otrproxy_sessions_total", "Logins of clients, by how they had come.", "entry")
	for _, e := range entries {
		f.sessions[e] = sessions.WithLabelValues(e)
	}
	events := vec("otrproxy_events_total", "What has happened that notify can tell of.", "event")
	for e := range eventWords {
		f.events[e] = events.WithLabelValues(e)
	}
	notified := vec("otrproxy_notify_runs_total", "Runs of the command of notify, by result.", "result")
	for _, r := range []notifyResult{notifyDone, notifyFailed, notifyDropped} {
		f.notified[r] = notified.WithLabelValues(string(r))
	}
	resumed := vec("otrproxy_upstream_resumptions_total", "Sessions that had lost their server, by whether it went on with them.", "result")
	f.resumed[true], f.resumed[false] = resumed.WithLabelValues("resumed"), resumed.WithLabelValues("refused")
	f.lasted = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "otrproxy_session_seconds", Help: "How long sessions have lasted that have ended.",
		Buckets: []float64{1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}})
	f.collected = append(f.collected, f.lasted)
	return f
}

func (f *figures) began(entry string) {
	if c := f.sessions[entry]; c != nil {
		c.Inc()
	}
}

func (f *figures) ended(since time.Time) { f.lasted.Observe(time.Since(since).Seconds()) }

func (f *figures) happened(event string) {
	if c := f.events[event]; c != nil {
		c.Inc()
	}
}

func (f *figures) notify(r notifyResult) { f.notified[r].Inc() }
func (f *figures) wentOn(resumed bool)   { f.resumed[resumed].Inc() }

// now is collected when asked for.
type now struct{ p *Proxy }

var (
	startDesc   = prometheus.NewDesc("otrproxy_start_time_seconds", "When the proxy was started, in Unix time.", nil, nil)
	illDesc     = prometheus.NewDesc("otrproxy_unhealthy", "1 where something keeps the proxy from its work, by cause; as /health says.", []string{"cause"}, nil)
	oldestDesc  = prometheus.NewDesc("otrproxy_held_oldest_seconds", "How long the message that has waited longest has done so; 0 where none waits.", nil, nil)
	waitsDesc   = prometheus.NewDesc("otrproxy_decisions", "What waits for a person, by kind.", []string{"kind"}, nil)
	limitDesc   = prometheus.NewDesc("otrproxy_sessions_limit", "limits.sessions of the configuration.", nil, nil)
	certEndDesc = prometheus.NewDesc("otrproxy_server_certificate_expiry_timestamp_seconds", "The soonest end of a server's certificate, in Unix time; 0 while none was seen.", nil, nil)
	keptDesc    = prometheus.NewDesc("otrproxy_kept", "What is kept for others, by kind: what a server or a visitor can have us remember.", []string{"what"}, nil)
	mostDesc    = prometheus.NewDesc("otrproxy_kept_limit", "The most of it, for one account, contact or session, or in all, as status says; 0 where its bytes are what is bounded.", []string{"what"}, nil)
	sparedDesc  = prometheus.NewDesc("otrproxy_spared_total", "What was not done, or later, because others asked for too much of it: lines not told, queries delayed, answers refused.", []string{"what"}, nil)
	caEndDesc   = prometheus.NewDesc("otrproxy_ca_expiry_timestamp_seconds", "The end of the local CA, in Unix time.", nil, nil)
)

// decisionKinds are those of control.Decision.
var decisionKinds = []string{"key-changed", "question", "unverified", "server-changed", "server-unknown", "server-expiring", "login-weaker", "login-unknown", "locked"}

func (now) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{startDesc, illDesc, oldestDesc, waitsDesc, limitDesc, certEndDesc, caEndDesc, keptDesc, mostDesc, sparedDesc} {
		ch <- d
	}
}

func (n now) Collect(ch chan<- prometheus.Metric) {
	p := n.p
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(startDesc, seconds(p.started))
	gauge(limitDesc, float64(p.Config().Limits.Sessions))
	gauge(caEndDesc, seconds(p.ca.cert.NotAfter))
	gauge(certEndDesc, seconds(p.soonestEnd()))
	oldest, unverified := p.waiting()
	gauge(oldestDesc, oldest.Seconds())
	lines, spared := p.kept("")
	for _, l := range lines {
		gauge(keptDesc, float64(l.Now), l.What)
		gauge(mostDesc, float64(l.Most), l.What)
	}
	for _, what := range sparedKinds {
		ch <- prometheus.MustNewConstMetric(sparedDesc, prometheus.CounterValue, float64(spared[what]), what)
	}
	ill := map[illness]float64{}
	for _, i := range p.ills() {
		ill[i] = 1
	}
	for _, i := range illnesses {
		gauge(illDesc, ill[i], string(i))
	}
	waits := map[string]float64{"key-changed": float64(p.keeps.all().Changed), "question": float64(p.keeps.all().Asking), "unverified": float64(unverified)}
	for _, d := range slices.Concat(p.lockedDecisions(), p.strangerDecisions(""), p.serverDecisions()) {
		waits[d.Kind]++
	}
	for _, k := range decisionKinds {
		gauge(waitsDesc, waits[k], k)
	}
}

// seconds is a time in Unix time, 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// soonestEnd is when the first of the household's servers' certificates ends; zero while
// none was seen.
func (p *Proxy) soonestEnd() (soonest time.Time) {
	for _, domain := range p.seen() {
		if !p.concerns(domain) {
			continue
		}
		p.mu.Lock()
		x := p.certificates[domain]
		p.mu.Unlock()
		if x != nil && (soonest.IsZero() || x.cert.NotAfter.Before(soonest)) {
			soonest = x.cert.NotAfter
		}
	}
	return soonest
}

// waiting is how long a message has waited at most, and for how many contacts' keys to be
// verified messages wait.
func (p *Proxy) waiting() (longest time.Duration, unverified int) {
	if p.keeps.all().Held == 0 {
		return 0, 0
	}
	for _, a := range p.open() {
		since, keys := a.Waiting()
		if unverified += keys; !since.IsZero() {
			longest = max(longest, time.Since(since))
		}
	}
	return longest, unverified
}
