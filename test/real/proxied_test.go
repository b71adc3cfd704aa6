//go:build linux

package real

import (
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// proxied is a contact with a client without OTR behind an otrproxy of their own.
type proxied struct {
	*slixmpp
	s    *xmppServer
	h    *household
	user string
	peer string
}

func startProxied(t *testing.T, s *xmppServer, user, peer string) contact {
	t.Helper()
	p := &proxied{s: s, h: startOTRProxy(t, s, ""), user: user, peer: peer}
	p.slixmpp = startSlixmpp(t, p.jid(), p.h.addr, "starttls")
	p.online()
	return p
}

func (p *proxied) jid() string       { return p.user + "@" + p.s.domain }
func (p *proxied) say(text string)   { p.slixmpp.say(p.peer, "", text) }
func (p *proxied) reads(text string) { p.t.Helper(); p.slixmpp.reads(p.peer, text) }
func (p *proxied) allow()            {} // slixmpp does by itself

func (p *proxied) restart() {
	p.t.Helper()
	p.kill(syscall.SIGKILL)
	p.h.kill(syscall.SIGKILL)
	p.h.start(p.t)
	p.slixmpp = startSlixmpp(p.t, p.jid(), p.h.addr, "direct")
	p.online()
}

func (p *proxied) ask(question, secret string) {
	if question == "" {
		p.say("!otr smp start " + secret)
		return
	}
	p.say("!otr smp ask " + question + " | " + secret)
}

func (p *proxied) asked(question string) {
	p.t.Helper()
	if question == "" {
		p.noticed(p.peer, "wants to compare a secret")
		return
	}
	p.noticed(p.peer, regexp.QuoteMeta(question))
}

func (p *proxied) answer(secret string) { p.say("!otr smp answer " + secret) }

func (p *proxied) told(equal bool) {
	p.t.Helper()
	p.noticed(p.peer, map[bool]string{true: "The secrets are the same|Your answer was right", false: "NOT the same"}[equal])
}

func (p *proxied) fingerprint() string {
	p.t.Helper()
	p.say("!otr key")
	return lastFingerprint(p.noticed(p.peer, regexp.QuoteMeta(p.jid())+" "+fingerprints))
}

func (p *proxied) verifies(fp string) {
	p.t.Helper()
	p.say("!otr verify " + fp)
	p.noticed(p.peer, "is verified")
}

func (p *proxied) profile() string { return filepath.Join(p.h.state, "accounts", p.jid()) }

func (p *proxied) trusts() bool {
	return fileHas(filepath.Join(p.h.state, "accounts", p.jid(), "otr.fingerprints"), "smp|verified")()
}
