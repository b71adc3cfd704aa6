//go:build linux

package real

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"otrproxy/otrlayer/otr"
	"otrproxy/test/need"
)

// A slixmpp is the unmodified client of somebody behind the proxy.
type slixmpp struct {
	*process
	t    *testing.T
	chat reading
}

// startSlixmpp starts one; more are words for the script: a resource, "carbons", "tls1.2", "ca=FILE".
func startSlixmpp(t *testing.T, jid, addr, entry string, more ...string) *slixmpp {
	t.Helper()
	return startSlixmppIn(t, nil, jid, addr, entry, more...)
}

// startSlixmppIn starts one by a command in front, such as one that leads to another network.
func startSlixmppIn(t *testing.T, by []string, jid, addr, entry string, more ...string) *slixmpp {
	t.Helper()
	need.PythonModule(t, "slixmpp")
	host, port, _ := net.SplitHostPort(addr)
	c := &slixmpp{t: t}
	script, _ := filepath.Abs("slixmpp_client.py")
	c.process = start(t, "slixmpp", nil, "", slices.Concat(by, []string{need.Python, script, jid, "secret", host, port, entry}, more)...)
	c.chat = reading{what: "otrproxy", text: c.output}
	return c
}

func (c *slixmpp) online() { c.t.Helper(); c.says(c.t, `(?m)^online \S+`) }

func (c *slixmpp) say(to, id, text string) {
	b, _ := json.Marshal(text)
	fmt.Fprintf(c.in, "say %s %s %s\n", to, id, b)
}

// befriend waits until both see each other's presence.
func (c *slixmpp) befriend(bob contact) {
	c.t.Helper()
	seen := regexp.MustCompile(`(?m)^present ` + regexp.QuoteMeta(bob.jid()))
	tries := 0
	eventually(c.t, "the presence of "+bob.jid(), func() bool {
		if tries++; tries%20 == 1 {
			bob.allow()
		}
		return seen.MatchString(c.output())
	})
}

// reads waits for a text of a contact.
func (c *slixmpp) reads(from, text string) {
	c.t.Helper()
	b := new(strings.Builder)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	e.Encode(text)
	c.says(c.t, `(?m)^text `+regexp.QuoteMeta(from)+`(/\S*)? `+regexp.QuoteMeta(strings.TrimSpace(b.String()))+`$`)
}

// noticed waits for the next line of the proxy's in the conversation with a contact.
func (c *slixmpp) noticed(from, pattern string) string {
	c.t.Helper()
	return c.chat.next(c.t, `(?m)^text `+regexp.QuoteMeta(from)+`(/\S*)? "\[otrproxy\] .*`+pattern+`.*$`)
}

// archive asks for the account's archive (XEP-0313), and returns what is shown of it.
func (c *slixmpp) archive() string {
	c.t.Helper()
	before := len(c.output())
	fmt.Fprintln(c.in, "archive")
	c.says(c.t, `(?m)^archive \d+$`)
	return c.output()[before:]
}

func (c *slixmpp) quit() {
	fmt.Fprintln(c.in, "quit")
	c.says(c.t, `(?m)^closed`)
	c.kill(syscall.SIGKILL)
}

// A contact is somebody who is connected straight to the server with libotr.
type contact interface {
	jid() string
	say(text string)
	reads(text string)
	restart()
	allow() // lets the peer see our presence, if it has asked by now

	// Comparing secrets, with a question where it is not empty.
	ask(question, secret string)
	asked(question string) // waits until the peer has asked
	answer(string)         // to that
	told(equal bool)       // waits for the result
	trusts() bool          // whether the program's own file says that the peer is verified

	// Comparing fingerprints.
	fingerprint() string // their own, as they read it out
	verifies(fp string)  // says in the program that the peer has read this out
	profile() string     // where the program keeps what libotr writes
}

// ownKey is the fingerprint of the one key in a libotr file.
func ownKey(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	k, err := otr.FindKey(b, func(string, string) bool { return true })
	if err != nil || k == nil {
		t.Fatalf("%s: %v %v", path, k, err)
	}
	return k.Fingerprint().String()
}

func lastFingerprint(s string) string {
	list := regexp.MustCompile(fingerprints).FindAllString(s, -1)
	return list[len(list)-1]
}

// fingerprints are written by all programs like this.
const fingerprints = `[0-9A-Fa-f]{8}( [0-9A-Fa-f]{8}){4}`

// mcabber is a contact with mcabber, which speaks plain text inside OTR.
type mcabber struct {
	*process
	t    *testing.T
	s    *xmppServer
	user string
	dir  string
	peer string
	chat reading
}

func startMcabber(t *testing.T, s *xmppServer, user, peer string) contact {
	t.Helper()
	need.Program(t, "mcabber")
	m := &mcabber{t: t, s: s, user: user, dir: t.TempDir(), peer: peer}
	for _, d := range []string{"otr", "log"} {
		os.MkdirAll(filepath.Join(m.dir, d), 0o700)
	}
	rc := fmt.Sprintf(`set jid = %s
set password = secret
set server = %s
set port = 5222
set tls = 1
set ssl_ignore_checks = 1
set resource = mcabber
set otr = 1
set otr_dir = %s/otr
module load fifo
set fifo_name = %s/fifo
set logging = 1
set logging_dir = %s/log
set autoaway = 0
set beep_on_message = 0
set disable_random_resource = 1
set carbons = 1
set tracelog_level = 3
set tracelog_file = %s/trace
otrpolicy default opportunistic
`, m.jid(), s.ip, m.dir, m.dir, m.dir, m.dir)
	os.WriteFile(filepath.Join(m.dir, "rc"), []byte(rc), 0o600)
	t.Cleanup(func() {
		if t.Failed() {
			trace, _ := os.ReadFile(filepath.Join(m.dir, "trace"))
			files, _ := filepath.Glob(m.dir + "/*/*")
			t.Logf("mcabber's files %v, trace:\n%s", files, trace)
		}
	})
	m.run()
	m.befriend()
	m.chat = reading{what: "mcabber", text: m.output}
	m.command("/roster search " + peer)
	fmt.Fprint(m.in, "\r") // shows the window of the conversation
	return m
}

// runMcabber runs mcabber with a directory of its files.
func runMcabber(t *testing.T, dir string) *process {
	t.Helper()
	return startOnTerminal(t, "mcabber", []string{"TERM=xterm-256color", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME=" + dir}, "mcabber", "-f", filepath.Join(dir, "rc"))
}

func (m *mcabber) run() {
	m.t.Helper()
	os.Remove(filepath.Join(m.dir, "trace"))
	m.process = runMcabber(m.t, m.dir)
	eventually(m.t, "mcabber's login", fileHas(filepath.Join(m.dir, "trace"), `Carbons enabled|status has been set`))
	eventually(m.t, "mcabber's FIFO", func() bool {
		st, err := os.Stat(filepath.Join(m.dir, "fifo"))
		return err == nil && st.Mode()&os.ModeNamedPipe != 0
	})
}

// befriend puts the peer on the roster, as people do first; mcabber keeps OTR from
// strangers.
func (m *mcabber) befriend() {
	m.t.Helper()
	m.command("/authorization allow " + m.peer)
	m.command("/add " + m.peer)
	m.command("/authorization request " + m.peer)
	eventually(m.t, "mcabber to see "+m.peer, fileHas(filepath.Join(m.dir, "trace"), `type="presence" from: `+regexp.QuoteMeta(m.peer)+`/`))
}

func (m *mcabber) allow() { m.t.Helper(); m.command("/authorization allow " + m.peer) }

func (m *mcabber) jid() string { return m.user + "@" + m.s.domain }

func (m *mcabber) command(line string) {
	m.t.Helper()
	f, err := os.OpenFile(filepath.Join(m.dir, "fifo"), os.O_WRONLY, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, line)
}

func (m *mcabber) say(text string) {
	m.t.Helper()
	if !strings.Contains(text, "\n") && len(text) < 500 {
		m.command("/say_to -q " + m.peer + " " + text)
		return
	}
	file := filepath.Join(m.dir, "text") // its command line is a line
	write(m.t, m.dir, map[string]string{"text": text})
	m.command("/say_to -q -f " + file + " " + m.peer)
}

func (m *mcabber) reads(text string) {
	m.t.Helper()
	eventually(m.t, "mcabber to read "+text, fileHas(filepath.Join(m.dir, "log", m.peer), `(?m)^MR .*`+regexp.QuoteMeta(text)+`$`))
}

func (m *mcabber) ask(question, secret string) {
	m.t.Helper()
	m.command("/otr smpq " + m.peer + " " + secret)
}

func (m *mcabber) asked(string) { m.t.Helper(); m.chat.next(m.t, "Received SMP Initiation") }

func (m *mcabber) answer(secret string) {
	m.t.Helper()
	m.command("/otr smpr " + m.peer + " " + secret)
}

func (m *mcabber) told(equal bool) {
	m.t.Helper()
	m.chat.next(m.t, map[bool]string{true: "Protocol: Success", false: "Protocol: Failure"}[equal])
}

func (m *mcabber) trusts() bool {
	return fileHas(filepath.Join(m.dir, "otr", "*.fpr"), `\t(smp|trust\w*|verified|affirmed)`)()
}

func (m *mcabber) fingerprint() string {
	m.t.Helper()
	m.command("/otr key")
	return lastFingerprint(m.chat.next(m.t, regexp.QuoteMeta(m.jid())+`: ?`+fingerprints))
}

func (m *mcabber) verifies(fp string) {
	m.t.Helper()
	m.command("/otr fingerprint " + m.peer + " " + fp)
}

func (m *mcabber) profile() string { return filepath.Join(m.dir, "otr") }

func (m *mcabber) restart() {
	m.t.Helper()
	m.command("/quit")
	select {
	case <-m.done:
	case <-time.After(10 * time.Second):
		m.kill(syscall.SIGKILL)
	}
	m.run()
}

// bitlbee is a contact with bitlbee, which speaks HTML inside OTR; the test is its
// IRC client.
type bitlbee struct {
	*process
	t     *testing.T
	s     *xmppServer
	user  string
	dir   string
	peer  string
	port  string
	conn  net.Conn
	mu    sync.Mutex
	cond  sync.Cond
	lines []string
	fresh bool
	chat  reading
}

func startBitlbee(t *testing.T, s *xmppServer, user, peer string) contact {
	t.Helper()
	need.Program(t, "bitlbee")
	b := &bitlbee{t: t, s: s, user: user, dir: t.TempDir(), peer: peer, fresh: true}
	b.cond.L = &b.mu
	b.chat = reading{what: "bitlbee", text: func() string {
		b.mu.Lock()
		defer b.mu.Unlock()
		return strings.Join(b.lines, "\n")
	}}
	b.run()
	return b
}

// allow has nothing to do: listen answers each request.
func (b *bitlbee) allow() {}

func (b *bitlbee) jid() string  { return b.user + "@" + b.s.domain }
func (b *bitlbee) nick() string { n, _, _ := strings.Cut(b.peer, "@"); return n }

func (b *bitlbee) run() {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	_, b.port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	conf := filepath.Join(b.dir, "bitlbee.conf")
	os.WriteFile(conf, []byte(fmt.Sprintf("[settings]\nRunMode = Daemon\nDaemonInterface = 127.0.0.1\nDaemonPort = %s\nAuthMode = Open\nConfigDir = %s\nMotdFile=/dev/null\n", b.port, b.dir)), 0o600)
	b.process = start(b.t, "bitlbee", []string{"HOME=" + b.dir}, b.dir, "bitlbee", "-D", "-n", "-c", conf, "-d", b.dir, "-P", filepath.Join(b.dir, "pid"))
	eventually(b.t, "bitlbee to listen", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+b.port)
		if err == nil {
			b.conn = c
		}
		return err == nil
	})
	b.mu.Lock()
	b.lines = nil
	b.mu.Unlock()
	go b.listen(b.conn)
	b.send("NICK " + b.user)
	b.send("USER " + b.user + " x x :x")
	b.hears(`Welcome to the .*BitlBee|JOIN :?&bitlbee`)
	if b.fresh {
		b.fresh = false
		b.root("set ops none")
		b.root("account add jabber " + b.jid() + " secret")
		b.hears(`Account successfully added`)
		for _, x := range []string{"server " + b.s.ip, "port 5222", "resource bitlbee", "tls_verify false", "tls true"} {
			b.root("account jabber set " + x)
		}
		b.root("set auto_reconnect false")
		b.root("account jabber on")
		b.hears(`Logged in`)
		b.root("otr keygen jabber")
		b.hears(`otr keygen for .* complete`)
		b.root("register pw")
		b.root("save")
		b.hears(`Configuration saved`)
	} else {
		b.root("identify pw")
		b.hears(`Password accepted`)
		b.hears(`Logged in`)
	}
	b.root("add jabber " + b.peer)
	b.hears(`(?i)already|JOIN|` + b.nick())
}

func (b *bitlbee) send(line string) { fmt.Fprintf(b.conn, "%s\r\n", line) }
func (b *bitlbee) root(line string) { b.send("PRIVMSG &bitlbee :" + line) }

func (b *bitlbee) listen(c net.Conn) {
	sc := bufio.NewScanner(c)
	for sc.Scan() {
		line := sc.Text()
		if strings.HasPrefix(line, "PING") {
			fmt.Fprintf(c, "PONG%s\r\n", line[4:])
		}
		if strings.Contains(line, "wants to add you") || strings.Contains(line, "New request") {
			fmt.Fprintf(c, "PRIVMSG &bitlbee :yes\r\n")
		}
		b.mu.Lock()
		b.lines = append(b.lines, line)
		b.cond.Broadcast()
		b.mu.Unlock()
	}
}

func (b *bitlbee) hears(pattern string) {
	b.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.Now().Add(patience)
	timer := time.AfterFunc(patience, b.cond.Broadcast)
	defer timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		for _, l := range b.lines {
			if re.MatchString(l) {
				return
			}
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("bitlbee never said %s; it said:\n%s", pattern, strings.Join(b.lines, "\n"))
		}
		b.cond.Wait()
	}
}

func (b *bitlbee) say(text string) {
	if does, ok := strings.CutPrefix(text, "/me "); ok {
		text = "\x01ACTION " + does + "\x01"
	}
	b.send("PRIVMSG " + b.nick() + " :" + text)
}

// reads waits for a text. One of several lines, or of more than IRC has room for, comes in
// pieces, and blanks are lost where it is broken.
func (b *bitlbee) reads(text string) {
	b.t.Helper()
	if strings.Contains(text, "\n") || len(text) > 400 {
		colour := regexp.MustCompile(`\x03\d\d`) // of what was encrypted
		squeeze := func(s string) string { return strings.Join(strings.Fields(colour.ReplaceAllString(s, "")), "") }
		said := regexp.MustCompile(`^:` + b.nick() + `!\S+ PRIVMSG \S+ :(.*)$`)
		eventually(b.t, "bitlbee to read "+text, func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			all := ""
			for _, l := range b.lines {
				if m := said.FindStringSubmatch(l); m != nil {
					all += squeeze(m[1])
				}
			}
			return strings.Contains(all, squeeze(text))
		})
		return
	}
	b.hears(`^:` + b.nick() + `!\S+ PRIVMSG \S+ :.*` + regexp.QuoteMeta(text))
}

func (b *bitlbee) ask(question, secret string) {
	if question == "" {
		b.root("otr smp " + b.nick() + " \"" + secret + "\"")
		return
	}
	b.root("otr smpq " + b.nick() + " \"" + question + "\" \"" + secret + "\"")
}

func (b *bitlbee) asked(question string) {
	b.t.Helper()
	b.chat.next(b.t, "smp: initiated by "+b.nick())
	if question != "" {
		b.chat.next(b.t, regexp.QuoteMeta(question))
	}
}

func (b *bitlbee) answer(secret string) { b.root("otr smp " + b.nick() + " \"" + secret + "\"") }

func (b *bitlbee) told(equal bool) {
	b.t.Helper()
	b.chat.next(b.t, map[bool]string{true: "secrets proved equal, fingerprint trusted|correct answer, you are trusted", false: "secrets did not match|wrong answer"}[equal])
}

func (b *bitlbee) trusts() bool {
	b.root("save")
	return fileHas(filepath.Join(b.dir, b.user+".otr_fprints"), "(smp|affirmed)")()
}

func (b *bitlbee) fingerprint() string {
	b.t.Helper()
	b.root("otr info")
	b.chat.next(b.t, "private keys")
	return lastFingerprint(b.chat.next(b.t, fingerprints))
}

func (b *bitlbee) verifies(fp string) {
	b.t.Helper()
	b.root("otr trust " + b.nick() + " " + fp)
}

func (b *bitlbee) profile() string {
	b.t.Helper()
	b.root("save")
	b.chat.next(b.t, "Configuration saved")
	return b.dir
}

func (b *bitlbee) restart() {
	b.t.Helper()
	b.root("account jabber off")
	b.send("QUIT")
	b.conn.Close()
	b.kill(syscall.SIGTERM)
	b.run()
}

// contacts are the programs on the other side.
var contacts = map[string]func(*testing.T, *xmppServer, string, string) contact{"mcabber": startMcabber, "bitlbee": startBitlbee}

// everyContact are those and others.
var everyContact = map[string]func(*testing.T, *xmppServer, string, string) contact{"mcabber": startMcabber, "bitlbee": startBitlbee, "profanity": startProfanity, "pidgin": startPidgin, "otrproxy": startProxied}

// goSendxmpp sends one message through the proxy, whatever certificate that has.
func goSendxmpp(t *testing.T, from, addr, to, text string) {
	t.Helper()
	runGoSendxmpp(t, nil, text, "-u", from, "-p", "secret", "-j", addr, "-n", to)
}

func runGoSendxmpp(t *testing.T, env []string, text string, words ...string) {
	t.Helper()
	need.Program(t, "go-sendxmpp")
	cmd := exec.Command("go-sendxmpp", words...)
	cmd.Stdin = strings.NewReader(text + "\n")
	cmd.Env = append(append(os.Environ(), env...), "HOME="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go-sendxmpp: %v\n%s", err, out)
	}
}
