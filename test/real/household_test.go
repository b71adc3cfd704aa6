//go:build linux

package real

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"otrproxy/demo/client"
	"otrproxy/stanza"
)

// secretWord is in every text that nobody but its reader may see.
const secretWord = "qzanary"

// A day of a household: all that its people hand over, and what becomes of it.
type day struct {
	t       *testing.T
	one     *xmppServer // Prosody
	two     *xmppServer // ejabberd
	h       *household
	metrics string
	n       int
	sent    []entry
	sum     map[string]float64 // figures of the proxies that have ended
	cpu     time.Duration
	most    int // kB
}

// An entry is one message, and how to find out what became of it.
type entry struct {
	text     string
	read     func() string // all that the reader has been shown
	returned func() bool
}

// sends notes a text for a reader, and returns it.
func (d *day) sends(by string, read func() string, returned func(id string) bool) (id, text string) {
	d.n++
	id, text = fmt.Sprintf("m%04d", d.n), fmt.Sprintf("%s%04d %s", secretWord, d.n, by)
	d.sent = append(d.sent, entry{text, read, func() bool { return returned(id) }})
	return id, text
}

// A member is somebody of the household at a desk, with slixmpp, over several logins.
type member struct {
	*slixmpp
	jid, entry string
	past       string
}

// comes logs the member in, once more.
func (m *member) comes(t *testing.T, h *household) {
	t.Helper()
	if m.slixmpp != nil {
		m.past += m.output()
	}
	m.slixmpp = startSlixmpp(t, m.jid, h.addr, m.entry, "desk", "carbons")
	m.online()
}

// shown is all that the member has ever been shown.
func (m *member) shown() string { return m.past + m.output() }

// gotBack reports whether a message came back.
func (m *member) gotBack(id string) bool {
	return regexp.MustCompile(`(?m)^error ` + id + ` `).MatchString(m.shown())
}

// says has a member write to a reader.
func (d *day) says(m *member, to string, read func() string) (id string) {
	id, text := d.sends("slixmpp", read, m.gotBack)
	m.say(to, id, text)
	return id
}

// hears notes a text of a contact's for a member. It is no secret word: whether it leaves their
// program encrypted is up to that.
func (d *day) hears(by string, m *member) (text string) {
	_, text = d.sends(by, m.shown, never)
	text = strings.Replace(text, secretWord, "outside", 1)
	d.sent[len(d.sent)-1].text = text
	return text
}

func never(string) bool { return false }

// settled waits until everything that was sent so far has arrived or come back.
func (d *day) settled(when string) {
	d.t.Helper()
	open := ""
	defer func() {
		if open != "" {
			d.t.Logf("not settled %s: %s", when, open)
		}
	}()
	eventually(d.t, "what was sent to be settled "+when, func() bool {
		open = ""
		for _, e := range d.sent {
			if !strings.Contains(e.read(), e.text) && !e.returned() {
				open += e.text + ", "
			}
		}
		return open == ""
	})
}

// figures are all counters and gauges.
func (d *day) figures() map[string]float64 {
	d.t.Helper()
	resp, err := http.Get("http://" + d.metrics + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	out := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(name, "#") {
			out[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return out
}

// rests adds up what a proxy that is about to end has done and used.
func (d *day) rests() {
	d.t.Helper()
	for name, v := range d.figures() {
		d.sum[name] += v
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.h.cmd.Process.Pid))
	status, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.h.cmd.Process.Pid))
	if err != nil || err2 != nil {
		d.t.Fatal(err, err2)
	}
	f := strings.Fields(string(stat[strings.LastIndex(string(stat), ")"):]))
	for _, ticks := range f[12-1 : 14-1] {
		n, _ := strconv.Atoi(ticks)
		d.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	if m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(string(status)); m != nil {
		n, _ := strconv.Atoi(m[1])
		d.most = max(d.most, n)
	}
}

// configure writes the household's configuration.
func (d *day) configure(more string) {
	d.t.Helper()
	text := fmt.Sprintf(`listen: ["127.0.0.1:0"]
state: %q
metrics: %q
log: {level: debug, format: json}
domains:
  one.test: {connect: %q, tls: starttls, trust: tofu}
  two.test: {connect: %q, tls: direct, trust: tofu}
limits: {rate: 50}
access:
  - {account: "lodger@*", refuse: "lodgers have their own network"}
  - {account: "*", from: [127.0.0.0/8]}
otr:
  - {account: "carol@one.test", contact: "stranger@*", policy: require-verified, reason: "ask us first"}
  - {account: "dave@two.test", contact: "frank@two.test", policy: require, versions: [3], allow: [receipts]}
%s  - {account: "*", policy: require}
`, d.h.state, d.metrics, d.one.connect(), d.two.connect(), more)
	if err := os.WriteFile(d.h.conf, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// runs starts a version of the program on the household's state.
func (d *day) runs(program string) {
	d.t.Helper()
	d.h.process = start(d.t, "otrproxy", nil, "", program, "run", "--config", d.h.conf)
	line := d.h.says(d.t, `"msg":"listening","address":"[^"]+"`)
	d.h.addr = regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	d.h.says(d.t, `"msg":"ready"`)
}

func (d *day) control(words ...string) string {
	d.t.Helper()
	out, err := exec.Command(binary, append(words, "--config", d.h.conf)...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("%v: %v\n%s", words, err, out)
	}
	return string(out)
}

// Five people with nine clients of six kinds, two servers and one proxy with mixed rules,
// over a day in which one client floods, a contact is hostile, a server restarts, a
// certificate is renewed, the rules change and the program is upgraded: every message is
// read or comes back, and nobody on the way has seen any of them.
func TestHousehold(t *testing.T) {
	d := &day{t: t, one: startProsody(t, "starttls"), two: startEjabberd(t, "direct"), sum: map[string]float64{}}
	d.h = &household{state: filepath.Join(t.TempDir(), "state"), conf: filepath.Join(t.TempDir(), "otrproxy.yaml")}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.metrics = l.Addr().String()
	l.Close()
	next := filepath.Join(t.TempDir(), "otrproxy-next")
	if out, err := exec.Command("go", "build", "-o", next, "-ldflags", "-X main.version=0.2.0-next", "otrproxy/cmd/otrproxy").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	d.configure("")
	d.runs(binary)
	d.control("pin", "add", "one.test", d.one.pin)
	d.control("pin", "add", "two.test", d.two.pin)
	d.one.register(t, "alice", "carol", "bob", "mallory", "stranger", "lodger")
	d.two.register(t, "dave", "erin", "fay", "frank")
	desktop := startDesktop(t, t.TempDir())

	// The morning: they log in, one after the other.
	const alice, carol, dave, erin, fay = "alice@one.test", "carol@one.test", "dave@two.test", "erin@two.test", "fay@two.test"
	visitor := func(name, jid string) *process {
		t.Helper()
		dr := door{addr: d.h.addr, ca: filepath.Join(d.h.state, "ca.pem"), shown: shown(t, d.h, domainOf(jid)), desktop: desktop}
		dr.host, dr.port, _ = net.SplitHostPort(d.h.addr)
		for _, v := range visitors {
			if v.name == name {
				return v.start(t, dr, jid)
			}
		}
		t.Fatalf("there is no client %s", name)
		return nil
	}
	aliceDesk, carolDesk, daveDesk := &member{jid: alice, entry: "starttls"}, &member{jid: carol, entry: "plain"}, &member{jid: dave, entry: "direct"}
	desks := []*member{aliceDesk, carolDesk, daveDesk}
	for _, m := range desks {
		m.comes(t, d.h)
	}
	faysClient := func() *client.Client {
		c, err := client.Dial(t.Context(), client.Config{Addr: d.h.addr, JID: fay, Password: "secret", Resource: "flood", Entry: client.Direct})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Drop)
		return c
	}
	befriended(t, d.one, "bob", alice)
	bob := startMcabber(t, d.one, "bob", alice).(*mcabber)
	aliceDesk.befriend(bob)
	befriended(t, d.two, "frank", dave)
	frank := startBitlbee(t, d.two, "frank", dave).(*bitlbee)
	daveDesk.befriend(frank)
	phone := d.h.behind(t, alice, "phone", bob.jid())
	visitor("Profanity", carol)
	visitor("Pidgin", dave)
	visitor("Gajim", erin)
	eventually(t, "everybody's sessions", func() bool { return d.figures()["otrproxy_sessions"] >= 7 })
	flood := faysClient()
	visitor("go-sendxmpp", fay)
	if _, err := client.Dial(t.Context(), client.Config{Addr: d.h.addr, JID: "lodger@one.test", Password: "secret", Entry: client.Direct}); err == nil || !strings.Contains(err.Error(), "lodgers have their own network") {
		t.Errorf("the lodger was told %v", err)
	}
	talk := func(when string) {
		t.Helper()
		for range 10 {
			d.says(aliceDesk, bob.jid(), bob.reading)
			d.says(aliceDesk, carol, carolDesk.shown)
			d.says(carolDesk, alice, aliceDesk.shown)
			d.says(daveDesk, frank.jid(), frank.chat.text)
		}
		d.settled(when) // what their program says while it is not private any more, nobody gets
		_, text := d.sends("mcabber behind otrproxy", bob.reading, never)
		phone.say(text)
		bob.say(d.hears("mcabber", aliceDesk))
		frank.say(d.hears("bitlbee", daveDesk))
		d.settled(when)
	}
	talk("in the morning")

	// Noon: fay's client floods, and mallory writes whatever can be written.
	mallory, err := client.Dial(t.Context(), client.Config{Addr: d.one.ip + ":5222", JID: "mallory@one.test", Password: "secret", Entry: client.STARTTLS})
	if err != nil {
		t.Fatal(err)
	}
	defer mallory.Drop()
	floods := make(chan error, 2)
	go func() {
		for i := range 1500 {
			if err := flood.Send(fmt.Sprintf("<message to='%s' type='chat' id='f%d'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>", erin, i)); err != nil {
				floods <- err
				return
			}
		}
		floods <- nil
	}()
	go func() {
		for i := range 300 {
			for _, text := range []string{"?OTRv23?", "?OTR:AAMC", "?OTR:AAMKQUJD.", "?OTR Error: no", fmt.Sprintf("?OTR|%x|1,1,9,?OTR:x,", i), strings.Repeat("x", 5000), "[otrproxy] your key has changed"} {
				if err := mallory.Send(string(stanza.Message{To: alice, Type: "chat", Body: text}.AppendTo(nil))); err != nil {
					floods <- err
					return
				}
			}
		}
		floods <- nil
	}()
	talk("during the floods")
	for range 2 {
		if err := <-floods; err != nil {
			t.Errorf("a flood was broken off: %v", err)
		}
	}
	if d.figures()[`otrproxy_refused_total{cause="rate"}`] == 0 {
		t.Error("the flood was not slowed")
	}

	// Afternoon: other rules, by a reload that drops nobody.
	before := d.figures()["otrproxy_sessions"]
	d.configure("  - {account: \"alice@one.test\", contact: \"nobody@*\", policy: never}\n")
	d.control("reload")
	if got := d.control("contact", "policy", alice, "nobody@one.test"); !strings.Contains(got, "never") {
		t.Errorf("the new rule is not in force: %s", got)
	}
	if got := d.figures()["otrproxy_sessions"]; got != before {
		t.Errorf("%v sessions after the reload, %v before", got, before)
	}
	id := d.says(carolDesk, "stranger@one.test", func() string { return "" }) // waits for somebody to verify a key
	eventually(t, "carol's message to wait", func() bool { return strings.Contains(d.control("held", "list"), "stranger@one.test") })
	d.control("held", "drop", carol, "stranger@one.test")
	carolDesk.process.says(t, `(?m)^error `+id+` `)
	talk("after the reload")

	// The certificate of one server is renewed, as its people have announced; it restarts
	// in the middle of what is said.
	d.control("pin", "add", "one.test", d.one.announces(t), "--next")
	for range 5 {
		d.says(aliceDesk, carol, carolDesk.shown)
	}
	d.one.renews(t)
	d.one.kill(syscall.SIGKILL)
	for _, m := range desks[:2] {
		m.process.says(t, `(?m)^closed`)
	}
	d.one.again()
	for _, m := range desks[:2] { // who has come back is told of what had not gone
		m.comes(t, d.h)
	}
	bob.restart()
	bob.befriend()
	d.settled("after the server's restart")

	// The evening: an upgrade in place.
	d.rests()
	d.h.kill(syscall.SIGTERM)
	d.runs(next)
	if got := d.control("status"); !strings.Contains(got, "0.2.0-next") {
		t.Errorf("the new version does not run: %s", got)
	}
	for _, m := range desks {
		m.comes(t, d.h)
	}
	phone = d.h.behind(t, alice, "phone", bob.jid())
	talk("after the upgrade")
	d.rests()

	d.balance()
}

// reading is all that mcabber was shown.
func (m *mcabber) reading() string {
	b, _ := os.ReadFile(filepath.Join(m.dir, "log", m.peer))
	return string(b)
}

// balance draws up the ledger.
func (d *day) balance() {
	d.t.Helper()
	delivered, returned, both, lost := 0, 0, 0, 0
	for _, e := range d.sent {
		read, back := strings.Contains(e.read(), e.text), e.returned()
		switch {
		case read && back:
			both++
		case read:
			delivered++
		case back:
			returned++
		default:
			lost++
			d.t.Errorf("lost: %s", e.text)
		}
	}
	leaked := 0
	for _, s := range []*xmppServer{d.one, d.two} {
		leaked += strings.Count(s.received(), secretWord)
		if strings.Count(s.received(), "?OTR:") < 20 {
			d.t.Errorf("%s has recorded too little", s.name)
		}
	}
	if strings.Contains(d.h.output(), secretWord) {
		d.t.Error("the log holds what was written")
	}
	if leaked > 0 {
		d.t.Errorf("%d texts were seen by a server", leaked)
	}
	get := func(series string) float64 { return d.sum[series] }
	held := get(`otrproxy_stanzas_total{action="held",direction="out",kind="message"}`)
	d.t.Logf("household: %d messages | delivered %d | returned %d (and %d that the server may have had) | held on the way %.0f | lost %d | leaked %d", d.n, delivered, returned, both, held, lost, leaked)
	d.t.Logf("household: encrypted %.0f | decrypted %.0f | swallowed %.0f | key exchanges %.0f | slowed %.0f times | turned away %.0f | memory at most %d kB | CPU %s",
		get(`otrproxy_stanzas_total{action="encrypted",direction="out",kind="message"}`), get(`otrproxy_stanzas_total{action="decrypted",direction="in",kind="message"}`), get(`otrproxy_stanzas_total{action="swallowed",direction="in",kind="message"}`),
		get(`otrproxy_handshakes_total{result="complete"}`), get(`otrproxy_refused_total{cause="rate"}`), get(`otrproxy_refused_total{cause="access"}`), d.most, d.cpu)
}
