package notify

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"otrproxy/config"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/metrics"
)

// What happens is told to two kinds of listeners: pages that are open, which look anew
// (watchers), and the command of the configuration (notify), which may show it on a
// desktop. Neither is told what anybody wrote.

// Events that are about a server.
const (
	EventServerRefused  = "server-refused"  // its certificate, or how it lets people in
	EventServerRenewed  = "server-renewed"  // it presents the certificate that was announced
	EventServerExpiring = "server-expiring" // its certificate ends soon
	EventLoginUnknown   = "login-unknown"   // it has let somebody in with another password than the one known here
)

// eventWords are what the command is told of an event, before the contact or domain.
var eventWords = map[string]string{
	"private":           "The conversation is private now, with",
	"ended":             "The private conversation has ended, with",
	"key-changed":       "The key has changed, and nothing is sent until you decide, of",
	"trust":             "How far a key is trusted has changed, of",
	"asked":             "An answer is wanted that shows that it is you, by",
	"compared":          "A comparison of secrets goes on or has ended, with",
	"held":              "A message waits for a private conversation, with",
	"released":          "Messages that waited have been sent, to",
	"returned":          "A message was not sent, to",
	EventServerRefused:  "The server is not the one it should be, and was refused:",
	EventServerRenewed:  "The server has the new certificate that was announced:",
	EventServerExpiring: "The certificate of the server ends soon:",
	EventLoginUnknown:   "Somebody logged in with another password than yours, and sees nothing private until you decide, at",
}

// Events are all that the command can be told of.
func Events() []string { return slices.Collect(maps.Keys(eventWords)) }

// A Bell tells of what has happened: those who watch, and the command of "notify".
type Bell struct {
	config  func() *config.Config
	log     *journal.Journal
	metrics *metrics.Metrics
	by      Notifier        // runs the command; nil for this process
	ctx     context.Context // ends the command with the proxy
	queue   chan Notification
	done    chan struct{} // closed when no command runs any more

	mu       sync.Mutex
	watchers map[chan struct{}]bool
}

// New is told in ctx when the proxy ends; by runs the command, nil for this process.
func New(ctx context.Context, cfg func() *config.Config, log *journal.Journal, m *metrics.Metrics, by Notifier) *Bell {
	return &Bell{config: cfg, log: log, metrics: m, by: by, ctx: ctx, queue: make(chan Notification, hookQueue), done: make(chan struct{}), watchers: map[chan struct{}]bool{}}
}

// Watch is told of changes, one signal for many; stop ends it.
func (bl *Bell) Watch() (c <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	bl.mu.Lock()
	defer bl.mu.Unlock()
	bl.watchers[ch] = true
	return ch, func() {
		bl.mu.Lock()
		defer bl.mu.Unlock()
		delete(bl.watchers, ch)
	}
}

// Changed tells watchers to look anew. It never waits.
func (bl *Bell) Changed() {
	bl.mu.Lock()
	defer bl.mu.Unlock()
	for c := range bl.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Happened tells of an event; about is a contact or a domain. It never waits.
func (bl *Bell) Happened(event, account, about string) {
	bl.Changed()
	bl.metrics.Happened(event)
	n := bl.config().Notify
	if len(n.Command) == 0 || !slices.Contains(n.Events, event) {
		return
	}
	select {
	case bl.queue <- Notification{event, account, about}:
	default: // more than anybody reads
		bl.metrics.Notify(metrics.NotifyDropped)
	}
}

// A Notification is what the command is told: what has happened, to which account, and
// the contact or domain that it is about.
type Notification struct{ Event, Account, About string }

// A Notifier runs the command of the configuration where this process cannot.
type Notifier interface {
	Tell(ctx context.Context, n Notification) error
	Reload() // the configuration has changed
}

const (
	hookQueue = 64
	hookPause = 10 * time.Second // in which the same is not told twice
)

// RunLimit is for one run of the command. Tests have their own.
var RunLimit = 10 * time.Second

// Work runs the command, once at a time, until the proxy stops. The same is not told twice in a
// short time.
func (bl *Bell) Work() {
	defer close(bl.done)
	last := map[Notification]time.Time{}
	for {
		select {
		case n := <-bl.queue:
			now := time.Now()
			if now.Sub(last[n]) < hookPause {
				continue
			}
			if len(last) > 1000 {
				clear(last)
			}
			last[n] = now
			bl.run(n)
		case <-bl.ctx.Done():
			return
		}
	}
}

// run has the command run, here or by who can.
func (bl *Bell) run(n Notification) {
	var err error
	if by := bl.by; by != nil {
		err = by.Tell(bl.ctx, n)
	} else {
		err = n.Run(bl.ctx, bl.config().Notify.Command)
	}
	switch {
	case err == nil:
		bl.metrics.Notify(metrics.NotifyDone)
	case bl.ctx.Err() == nil:
		bl.metrics.Notify(metrics.NotifyFailed)
		bl.log.Warn("the command of \"notify\" failed", "event", n.Event, "err", err)
	}
}

// Check refuses what is no notification of ours, and what could end a variable.
func (n Notification) Check() error {
	if eventWords[n.Event] == "" || strings.ContainsFunc(n.Account+n.About, unicode.IsControl) {
		return errors.New("this is no notification")
	}
	return nil
}

// Run runs the command. What it is told stands in its environment alone: as part of
// the command line a contact's address could be taken for an option.
func (n Notification) Run(ctx context.Context, command []string) error {
	ctx, cancel := context.WithTimeout(ctx, RunLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	endTogether(cmd)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "OTRPROXY_EVENT="+n.Event, "OTRPROXY_ACCOUNT="+n.Account, "OTRPROXY_ABOUT="+n.About,
		"OTRPROXY_TEXT="+eventWords[n.Event]+" "+n.About)
	return cmd.Run()
}

// Close waits for the command that runs, which the end of the proxy ends.
func (bl *Bell) Close() { <-bl.done }
