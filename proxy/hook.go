package proxy

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
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

// watchers are those who want to know that something has changed.
type watchers struct {
	mu  sync.Mutex
	set map[chan struct{}]bool
}

// Watch is told of changes, one signal for many; stop ends it.
func (p *Proxy) Watch() (c <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	w := &p.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.set == nil {
		w.set = map[chan struct{}]bool{}
	}
	w.set[ch] = true
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.set, ch)
	}
}

// changed tells watchers to look anew. It never waits.
func (p *Proxy) changed() {
	p.watchers.mu.Lock()
	defer p.watchers.mu.Unlock()
	for c := range p.watchers.set {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// happened tells of an event; about is a contact or a domain. It never waits.
func (p *Proxy) happened(event, account, about string) {
	p.changed()
	if p.metrics != nil { // nil for who only looks, as doctor does
		p.metrics.happened(event)
	}
	n := p.Config().Notify
	if p.hook == nil || len(n.Command) == 0 || !slices.Contains(n.Events, event) {
		return
	}
	select {
	case p.hook.queue <- Notification{event, account, about}:
	default: // more than anybody reads
		p.metrics.notify(notifyDropped)
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

// A hook runs the configured command, one at a time.
type hook struct {
	p     *Proxy
	queue chan Notification
	done  chan struct{}
	last  map[Notification]time.Time
}

const (
	hookQueue = 64
	hookPause = 10 * time.Second // in which the same is not told twice
)

var hookLimit = 10 * time.Second // for one run of the command; tests have their own

func newHook(p *Proxy) *hook {
	h := &hook{p: p, queue: make(chan Notification, hookQueue), done: make(chan struct{}), last: map[Notification]time.Time{}}
	go h.work()
	return h
}

func (h *hook) work() {
	defer close(h.done)
	for {
		select {
		case n := <-h.queue:
			now := time.Now()
			if now.Sub(h.last[n]) < hookPause {
				continue
			}
			if len(h.last) > 1000 {
				clear(h.last)
			}
			h.last[n] = now
			h.run(n)
		case <-h.p.ctx.Done():
			return
		}
	}
}

// run has the command run, here or by who can.
func (h *hook) run(n Notification) {
	var err error
	if by := h.p.opt.Notifier; by != nil {
		err = by.Tell(h.p.ctx, n)
	} else {
		err = n.Run(h.p.ctx, h.p.Config().Notify.Command)
	}
	switch {
	case err == nil:
		h.p.metrics.notify(notifyDone)
	case h.p.ctx.Err() == nil:
		h.p.metrics.notify(notifyFailed)
		h.p.log.Warn("the command of \"notify\" failed", "event", n.Event, "err", err)
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
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	endTogether(cmd)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "OTRPROXY_EVENT="+n.Event, "OTRPROXY_ACCOUNT="+n.Account, "OTRPROXY_ABOUT="+n.About,
		"OTRPROXY_TEXT="+eventWords[n.Event]+" "+n.About)
	return cmd.Run()
}

// close waits for the command that runs, which the end of the proxy ends.
func (h *hook) close() { <-h.done }
