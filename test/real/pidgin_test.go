//go:build linux

package real

import (
	"fmt"
	"html"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"otrproxy/test/need"
)

// pidgin is a contact with Pidgin and pidgin-otr, on a screen of its own. It writes
// and reads by D-Bus and its log; comparing secrets needs its windows.
type pidgin struct {
	*process
	t    *testing.T
	s    *xmppServer
	user string
	dir  string
	peer string
	env  []string

	question string // the peer's last one
	compared bool   // the result of a comparison is shown
}

func startPidgin(t *testing.T, s *xmppServer, user, peer string) contact {
	t.Helper()
	return startPidginWith(t, s, user, peer, string(need.KeyFile(t, "bob", user+"@"+s.domain+"/pidgin", "prpl-jabber")))
}

// startFreshPidgin starts one that makes its key itself, which takes a while.
func startFreshPidgin(t *testing.T, s *xmppServer, user, peer string) contact {
	t.Helper()
	return startPidginWith(t, s, user, peer, "")
}

func startPidginWith(t *testing.T, s *xmppServer, user, peer, key string) contact {
	t.Helper()
	cert, err := os.ReadFile(filepath.Join(filepath.Dir(s.log), s.domain+".crt"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"certificates/x509/tls_peers/" + s.ip:     string(cert),
		"certificates/x509/tls_peers/" + s.domain: string(cert),
	}
	if key != "" {
		files["otr.private_key"] = key
	}
	return openPidgin(t, s, user, peer, `<setting name='connect_server' type='string'>`+s.ip+`</setting>`, "", []string{pidginOTR}, files)
}

const pidginOTR = "/usr/lib/pidgin/pidgin-otr.so"

// openPidgin starts Pidgin as somebody who talks to a peer. Settings are more of the
// account's, way the account's proxy; files are more of its directory.
func openPidgin(t *testing.T, s *xmppServer, user, peer, settings, way string, plugins []string, files map[string]string) *pidgin {
	t.Helper()
	need.Program(t, append([]string{"pidgin", "Xvfb", "dbus-daemon", "dbus-send", "xdotool"}, plugins...)...)
	p := &pidgin{t: t, s: s, user: user, dir: t.TempDir(), peer: peer}
	loaded := ""
	for _, plugin := range plugins {
		loaded += `<item value='` + plugin + `'/>`
	}
	all := map[string]string{
		"accounts.xml": pidginAccount(p.jid(), "5222", settings, way),
		"prefs.xml": `<?xml version='1.0' encoding='UTF-8' ?><pref version='1' name='/'>
<pref name='purple'><pref name='logging'><pref name='log_ims' type='bool' value='1'/><pref name='format' type='string' value='txt'/></pref><pref name='savedstatus'><pref name='startup_current_status' type='bool' value='1'/></pref></pref>
<pref name='pidgin'><pref name='plugins'><pref name='loaded' type='pathlist'>` + loaded + `</pref></pref><pref name='debug'><pref name='enabled' type='bool' value='0'/></pref></pref>
<pref name='OTR'><pref name='enabled' type='bool' value='1'/><pref name='automatic' type='bool' value='1'/><pref name='onlyprivate' type='bool' value='0'/><pref name='avoidloggingotr' type='bool' value='0'/></pref></pref>`,
	}
	maps.Copy(all, files)
	write(t, p.dir, all)
	p.env = startDesktop(t, p.dir)
	p.run()
	return p
}

// pidginAccount is Pidgin's file with an account that logs in at the start.
func pidginAccount(jid, port, settings, way string) string {
	return `<?xml version='1.0' encoding='UTF-8' ?><account version='1.0'><account><protocol>prpl-jabber</protocol><name>` + jid + `/pidgin</name><password>secret</password>
<settings><setting name='port' type='int'>` + port + `</setting>` + settings + `<setting name='connection_security' type='string'>require_tls</setting></settings>
<settings ui='gtk-gaim'><setting name='auto-login' type='bool'>1</setting></settings>` + way + `</account></account>`
}

// runPidgin runs Pidgin with a directory of its files.
func runPidgin(t *testing.T, desktop []string, dir string) *process {
	t.Helper()
	return start(t, "pidgin", append(desktop, "HOME="+dir), dir, "pidgin", "-m", "-c", dir)
}

// startDesktop starts a screen and a bus for graphical programs, and returns how they find
// them.
func startDesktop(t *testing.T, dir string) (env []string) {
	t.Helper()
	screen := start(t, "Xvfb", nil, "", "Xvfb", "-displayfd", "1", "-screen", "0", "1200x900x24", "-nolisten", "tcp")
	display := ":" + strings.TrimSpace(screen.says(t, `(?m)^\d+$`))
	bus := start(t, "dbus-daemon", nil, "", "dbus-daemon", "--session", "--nofork", "--print-address=1", "--address=unix:path="+filepath.Join(dir, "bus"))
	address := strings.TrimSpace(bus.says(t, `unix:\S+`))
	return []string{"DISPLAY=" + display, "DBUS_SESSION_BUS_ADDRESS=" + address, "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "GTK_RC_FILES=/dev/null", "NO_AT_BRIDGE=1"}
}

func (p *pidgin) run() {
	p.t.Helper()
	p.process = runPidgin(p.t, p.env, p.dir)
	eventually(p.t, "Pidgin's login", func() bool { return p.account() != "0" })
}

func (p *pidgin) jid() string { return p.user + "@" + p.s.domain }

// call calls a function of libpurple's and returns its number or string.
func (p *pidgin) call(function string, args ...string) (string, error) {
	cmd := exec.Command("dbus-send", append([]string{"--session", "--print-reply=literal", "--dest=im.pidgin.purple.PurpleService", "/im/pidgin/purple/PurpleObject", "im.pidgin.purple.PurpleInterface." + function}, args...)...)
	cmd.Env = append(os.Environ(), p.env...)
	out, err := cmd.CombinedOutput()
	f := strings.Fields(string(out))
	if err != nil || len(f) == 0 {
		return "", fmt.Errorf("%s: %v: %s", function, err, out)
	}
	return f[len(f)-1], nil
}

// account is Pidgin's number of the account, 0 while it is not connected.
func (p *pidgin) account() string {
	n, err := p.call("PurpleAccountsFindConnected", "string:"+p.jid()+"/pidgin", "string:prpl-jabber")
	if err != nil {
		return "0"
	}
	return n
}

func (p *pidgin) number(function string, args ...string) string {
	p.t.Helper()
	n, err := p.call(function, args...)
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// conversation is Pidgin's number of the conversation with the peer, whose window it
// opens.
func (p *pidgin) conversation() string {
	p.t.Helper()
	return p.number("PurpleConversationNew", "int32:1", "int32:"+p.account(), "string:"+p.peer)
}

func (p *pidgin) say(text string) {
	p.t.Helper()
	im := p.number("PurpleConversationGetImData", "int32:"+p.conversation())
	if out, err := p.call("PurpleConvImSend", "int32:"+im, "string:"+html.EscapeString(text)); err != nil && !strings.Contains(err.Error(), "<nil>") {
		p.t.Fatal(out, err)
	}
}

func (p *pidgin) reads(text string) {
	p.t.Helper()
	eventually(p.t, "Pidgin to read "+text, fileHas(p.dir+"/logs/jabber/*/*/*.txt", regexp.QuoteMeta(p.peer)+`(/\S*)?:? `+regexp.QuoteMeta(text)+`\n`)) // without a colon for an action
}

// allow has nothing to do: the two are friends before Pidgin starts, for it asks in a
// window otherwise.
func (p *pidgin) allow() {}

// xdotool types, clicks and finds windows.
func (p *pidgin) xdotool(words ...string) (string, error) {
	cmd := exec.Command("xdotool", words...)
	cmd.Env = append(os.Environ(), p.env...)
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func (p *pidgin) keys(words ...string) {
	p.t.Helper()
	if _, err := p.xdotool(words...); err != nil {
		p.t.Fatalf("xdotool %q: %v", words, err)
	}
}

// focus waits for a window and gives it the keyboard.
func (p *pidgin) focus(title string) {
	p.t.Helper()
	eventually(p.t, "Pidgin's window "+title, func() bool {
		id, err := p.xdotool("search", "--onlyvisible", "--name", title)
		if err != nil || strings.Contains(id, "\n") {
			return false
		}
		_, err = p.xdotool("windowraise", id, "windowfocus", id)
		if err != nil {
			return false
		}
		at, err := p.xdotool("getwindowfocus")
		return err == nil && at == id
	})
}

// ask goes through the menu of the conversation's window.
func (p *pidgin) ask(question, secret string) {
	p.t.Helper()
	p.closeResult()
	p.conversation()
	p.focus("^" + p.peer)
	p.keys("key", "F10", "Right", "Right", "Right", "Down", "Down", "Down", "Return")
	p.focus("^Authenticate Buddy$")
	if question == "" {
		p.keys("key", "shift+Tab", "Down", "Tab") // the other way of asking
	} else {
		p.keys("type", question)
		p.keys("key", "Tab")
	}
	p.keys("type", secret)
	p.keys("key", "alt+a") // Authenticate
}

func (p *pidgin) asked(question string) {
	p.t.Helper()
	p.closeResult()
	p.question = question
	p.focus("^Authenticate Buddy$")
}

func (p *pidgin) answer(secret string) {
	p.t.Helper()
	p.keys("type", secret)
	p.keys("key", "Return")
}

// closeResult closes the window with the result of the last comparison.
func (p *pidgin) closeResult() {
	p.t.Helper()
	if !p.compared {
		return
	}
	p.compared = false
	// Its button works a moment after the result is written down.
	eventually(p.t, "Pidgin to close the result", func() bool {
		id, err := p.xdotool("search", "--onlyvisible", "--name", "^Authenticating Buddy$")
		if err != nil || id == "" {
			return true
		}
		p.xdotool("windowfocus", id, "key", "Return")
		return false
	})
}

// told waits for what Pidgin writes down. It takes back trust when secrets differ; to
// have answered a question changes nothing, and shows on the other side only.
func (p *pidgin) told(equal bool) {
	p.t.Helper()
	if p.question == "" {
		eventually(p.t, fmt.Sprintf("Pidgin's trust to be %v", equal), func() bool { return p.trusts() == equal })
	}
	p.question, p.compared = "", true
}

func (p *pidgin) fingerprint() string {
	p.t.Helper()
	return ownKey(p.t, filepath.Join(p.dir, "otr.private_key"))
}

// verifies goes through the windows, the third way of authenticating.
func (p *pidgin) verifies(fp string) {
	p.t.Helper()
	p.closeResult()
	p.conversation()
	p.focus("^" + p.peer)
	p.keys("key", "F10", "Right", "Right", "Right", "Down", "Down", "Down", "Return")
	p.focus("^Authenticate Buddy$")
	p.keys("key", "shift+Tab", "Down", "Down", "Tab")
	p.keys("key", "Down") // I have verified ...
	eventually(p.t, "Pidgin to trust "+fp, p.trusts)
	eventually(p.t, "Pidgin to close the window", func() bool {
		p.xdotool("key", "Escape")
		id, err := p.xdotool("search", "--onlyvisible", "--name", "^Authenticate Buddy$")
		return err != nil || id == ""
	})
}

func (p *pidgin) profile() string { return p.dir }

func (p *pidgin) trusts() bool {
	return fileHas(filepath.Join(p.dir, "otr.fingerprints"), `\t(smp|verified)`)()
}

func (p *pidgin) restart() {
	p.t.Helper()
	p.kill(syscall.SIGTERM)
	p.run()
}
