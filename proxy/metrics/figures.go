package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/control"
)

// Figures by which a household sees how its proxy does: who comes and how, what waits and
// for how long, what ends. No label names anybody, nor a domain.

// figures are those beside the stanzas' own.
type figures struct {
	sessions  map[string]prometheus.Counter // by entry
	lasted    prometheus.Histogram
	events    map[string]prometheus.Counter
	notified  map[NotifyResult]prometheus.Counter
	resumed   map[bool]prometheus.Counter
	collected []prometheus.Collector
}

// entries are the ways to come in.
var entries = []string{"plain", "starttls", "direct", "websocket", "socks5 plain", "socks5 starttls", "socks5 direct", "socks5 websocket"}

// A NotifyResult is what became of running the command of "notify".
type NotifyResult string

// The results of a run.
const (
	NotifyDone    NotifyResult = "done"
	NotifyFailed  NotifyResult = "failed"
	NotifyDropped NotifyResult = "dropped" // more happened than it was run for
)

func newFigures(kinds []string) *figures {
	f := &figures{sessions: map[string]prometheus.Counter{}, events: map[string]prometheus.Counter{}, notified: map[NotifyResult]prometheus.Counter{}, resumed: map[bool]prometheus.Counter{}}
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
	for _, e := range kinds {
		f.events[e] = events.WithLabelValues(e)
	}
	notified := vec("otrproxy_notify_runs_total", "Runs of the command of notify, by result.", "result")
	for _, r := range []NotifyResult{NotifyDone, NotifyFailed, NotifyDropped} {
		f.notified[r] = notified.WithLabelValues(string(r))
	}
	resumed := vec("otrproxy_upstream_resumptions_total", "Sessions that had lost their server, by whether it went on with them.", "result")
	f.resumed[true], f.resumed[false] = resumed.WithLabelValues("resumed"), resumed.WithLabelValues("refused")
	f.lasted = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "otrproxy_session_seconds", Help: "How long sessions have lasted that have ended.",
		Buckets: []float64{1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}})
	f.collected = append(f.collected, f.lasted)
	return f
}

func (f *figures) Began(entry string) {
	if c := f.sessions[entry]; c != nil {
		c.Inc()
	}
}

func (f *figures) Ended(since time.Time) { f.lasted.Observe(time.Since(since).Seconds()) }

func (f *figures) Happened(event string) {
	if c := f.events[event]; c != nil {
		c.Inc()
	}
}

func (f *figures) Notify(r NotifyResult) { f.notified[r].Inc() }
func (f *figures) WentOn(resumed bool)   { f.resumed[resumed].Inc() }

// A Snapshot is how things stand at one moment.
type Snapshot struct {
	Started      time.Time
	CAEnd        time.Time     // of the local CA
	CertEnd      time.Time     // of the first of the household's servers' certificates to end; zero while none was seen
	Sessions     int           // that are there
	SessionLimit int           // that may be
	Oldest       time.Duration // for which a message has waited
	Accounts     otrlayer.Kept // what all accounts keep
	Kept         []control.KeptLine
	Spared       map[string]uint64
	Ills         []Illness
	Waits        map[string]int // decisions, by kind
}

// live is collected when asked for.
type live struct{ now func() Snapshot }

var (
	startDesc    = prometheus.NewDesc("otrproxy_start_time_seconds", "When the proxy was started, in Unix time.", nil, nil)
	illDesc      = prometheus.NewDesc("otrproxy_unhealthy", "1 where something keeps the proxy from its work, by cause; as /health says.", []string{"cause"}, nil)
	oldestDesc   = prometheus.NewDesc("otrproxy_held_oldest_seconds", "How long the message that has waited longest has done so; 0 where none waits.", nil, nil)
	waitsDesc    = prometheus.NewDesc("otrproxy_decisions", "What waits for a person, by kind.", []string{"kind"}, nil)
	limitDesc    = prometheus.NewDesc("otrproxy_sessions_limit", "limits.sessions of the configuration.", nil, nil)
	certEndDesc  = prometheus.NewDesc("otrproxy_server_certificate_expiry_timestamp_seconds", "The soonest end of a server's certificate, in Unix time; 0 while none was seen.", nil, nil)
	keptDesc     = prometheus.NewDesc("otrproxy_kept", "What is kept for others, by kind: what a server or a visitor can have us remember.", []string{"what"}, nil)
	mostDesc     = prometheus.NewDesc("otrproxy_kept_limit", "The most of it, for one account, contact or session, or in all, as status says; 0 where its bytes are what is bounded.", []string{"what"}, nil)
	sparedDesc   = prometheus.NewDesc("otrproxy_spared_total", "What was not done, or later, because others asked for too much of it: lines not told, queries delayed, answers refused.", []string{"what"}, nil)
	sessionsDesc = prometheus.NewDesc("otrproxy_sessions", "Clients connected and logged in.", nil, nil)
	convsDesc    = prometheus.NewDesc("otrproxy_conversations", "Conversations by state and trust.", []string{"state", "trust"}, nil)
	heldDesc     = prometheus.NewDesc("otrproxy_held_messages", "Messages that wait for a private conversation.", nil, nil)
	caEndDesc    = prometheus.NewDesc("otrproxy_ca_expiry_timestamp_seconds", "The end of the local CA, in Unix time.", nil, nil)
)

// decisionKinds are those of control.Decision.
var decisionKinds = []string{"key-changed", "question", "unverified", "server-changed", "server-unknown", "server-expiring", "login-weaker", "login-unknown", "locked"}

func (live) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{startDesc, illDesc, oldestDesc, waitsDesc, limitDesc, certEndDesc, caEndDesc, keptDesc, mostDesc, sparedDesc, sessionsDesc, convsDesc, heldDesc} {
		ch <- d
	}
}

func (l live) Collect(ch chan<- prometheus.Metric) {
	now := l.now()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(startDesc, seconds(now.Started))
	gauge(sessionsDesc, float64(now.Sessions))
	gauge(limitDesc, float64(now.SessionLimit))
	gauge(caEndDesc, seconds(now.CAEnd))
	gauge(certEndDesc, seconds(now.CertEnd))
	gauge(oldestDesc, now.Oldest.Seconds())
	gauge(heldDesc, float64(now.Accounts.Held))
	now.Accounts.Census.All(func(s otrlayer.MessageState, t keyring.Trust, n int) {
		gauge(convsDesc, float64(n), string(s), string(t))
	})
	for _, k := range now.Kept {
		gauge(keptDesc, float64(k.Now), k.What)
		gauge(mostDesc, float64(k.Most), k.What)
	}
	for _, what := range sparedKinds {
		ch <- prometheus.MustNewConstMetric(sparedDesc, prometheus.CounterValue, float64(now.Spared[what]), what)
	}
	for _, i := range illnesses {
		ill := 0.0
		if slices.Contains(now.Ills, i) {
			ill = 1
		}
		gauge(illDesc, ill, string(i))
	}
	for _, k := range decisionKinds {
		gauge(waitsDesc, float64(now.Waits[k]), k)
	}
}

// seconds is a time in Unix time, 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// What a server, or whoever can reach the port, can have us keep, is shown beside the most of
// it, in status and among the figures.

// sparedKinds are what was done less often than others wanted.
var sparedKinds = []string{"lines", "asks_delayed", "answers"}
