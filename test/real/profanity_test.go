//go:build linux

package real

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"otrproxy/test/need"
)

// profanity is a contact with Profanity, a client for terminals, which speaks
// version 2 of OTR only.
type profanity struct {
	*process
	t    *testing.T
	s    *xmppServer
	user string
	dir  string
	peer string
	chat reading

	question bool // the peer has asked one
}

func startProfanity(t *testing.T, s *xmppServer, user, peer string) contact {
	t.Helper()
	need.Program(t, "profanity")
	p := &profanity{t: t, s: s, user: user, dir: t.TempDir(), peer: peer}
	write(t, p.dir, map[string]string{
		"config/profanity/profrc": "[connection]\naccount=" + p.jid() + "\n[logging]\nchlog=true\n[otr]\nlog=on\npolicy=manual\n[ui]\nsplash=false\n[chatstates]\nenabled=false\n",
		"data/profanity/accounts": fmt.Sprintf("[%s]\nenabled=true\njid=%s\nserver=%s\nport=5222\nresource=profanity\npassword=secret\ntls.policy=trust\notr.policy=manual\n", p.jid(), p.jid(), s.ip),
		"data/profanity/otr/" + strings.Replace(p.jid(), "@", "_at_", 1) + "/keys.txt": string(need.KeyFile(t, "bob", p.jid(), "xmpp")),
	})
	p.run()
	p.chat = reading{what: "Profanity", text: p.output}
	return p
}

// runProfanity runs Profanity with a directory of its files.
func runProfanity(t *testing.T, dir string, env ...string) *process {
	t.Helper()
	return startOnTerminal(t, "profanity", append(env, "TERM=xterm", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME="+dir, "XDG_CONFIG_HOME="+dir+"/config", "XDG_DATA_HOME="+dir+"/data"), "profanity")
}

func (p *profanity) run() {
	p.t.Helper()
	p.process = runProfanity(p.t, p.dir)
	p.says(p.t, `logged in successfully`)
	p.type_("/roster add " + p.peer)
	p.type_("/sub request " + p.peer)
}

func (p *profanity) jid() string { return p.user + "@" + p.s.domain }

// type_ types a line.
func (p *profanity) type_(line string) { fmt.Fprintf(p.in, "%s\r", line) }

func (p *profanity) say(text string) { p.type_("/msg " + p.peer + " " + text) }

func (p *profanity) reads(text string) {
	p.t.Helper()
	eventually(p.t, "Profanity to read "+text, fileHas(p.dir+"/data/profanity/chatlogs/*/"+strings.Replace(p.peer, "@", "_at_", 1)+"/*.log", regexp.QuoteMeta(p.peer)+`:? `+regexp.QuoteMeta(text)+`\n`)) // without a colon for an action
}

func (p *profanity) allow() { p.type_("/sub allow " + p.peer) }

// ask and answer work in the window of the conversation, where say has left us.
func (p *profanity) ask(question, secret string) {
	if question == "" {
		p.type_(`/otr secret "` + secret + `"`)
		return
	}
	p.type_(`/otr question "` + question + `" "` + secret + `"`)
}

func (p *profanity) asked(question string) {
	p.t.Helper()
	p.chat.next(p.t, "wants to authenticate your identity")
	p.question = question != ""
	if p.question {
		p.chat.next(p.t, regexp.QuoteMeta(question))
	}
}

func (p *profanity) answer(secret string) {
	if p.question {
		p.type_(`/otr answer "` + secret + `"`)
		return
	}
	p.type_(`/otr secret "` + secret + `"`)
}

func (p *profanity) told(equal bool) {
	p.t.Helper()
	p.chat.next(p.t, map[bool]string{true: "Authentication successful|successfully authenticated you", false: "Authentication failed|failed to authenticate you"}[equal])
}

func (p *profanity) fingerprint() string {
	p.t.Helper()
	return ownKey(p.t, filepath.Join(p.profile(), "keys.txt"))
}

func (p *profanity) verifies(fp string) {
	p.t.Helper()
	p.type_("/otr trust")
}

func (p *profanity) profile() string {
	return filepath.Join(p.dir, "data/profanity/otr", strings.Replace(p.jid(), "@", "_at_", 1))
}

func (p *profanity) trusts() bool {
	return fileHas(filepath.Join(p.dir, "data/profanity/otr", strings.Replace(p.jid(), "@", "_at_", 1), "fingerprints.txt"), `\t(smp|verified|trust)`)()
}

func (p *profanity) restart() {
	p.t.Helper()
	p.type_("/quit")
	<-p.done
	p.run()
}
