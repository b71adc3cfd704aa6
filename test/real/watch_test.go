//go:build linux

package real

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
	"otrproxy/test/need"
)

// canary is part of every name, password and text here, and of nothing else.
const canary = "canary"

// A watched household is one whose people's names all have the canary in them.
type watched struct {
	*household
	figures string // address of the figures
}

// watch starts one, lets its people talk, fail and be refused, and ends it; seen is what
// stood in the figures and the state of health at the end, and log what was written.
func watch(t *testing.T, log string) (seen, health, written string) {
	t.Helper()
	const domain, other = canary + "domain.example", canary + "other.example"
	users := map[string]string{canary + "alice": canary + "pass", canary + "bob": canary + "pass"}
	s, err := server.Start(server.Config{Domain: domain, Users: users})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wrong, err := server.Start(server.Config{Domain: other, Users: users})
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	w := watched{household: &household{state: filepath.Join(t.TempDir(), "state"), conf: filepath.Join(t.TempDir(), "otrproxy.yaml")}}
	for who, key := range map[string]string{"alice": "alice", "bob": "bob"} {
		jid := canary + who + "@" + domain
		write(t, filepath.Join(w.state, "accounts", jid), map[string]string{"otr.private_key": string(need.KeyFile(t, key, jid, "prpl-jabber"))})
	}
	text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\nmetrics: \"127.0.0.1:0\"\nlog: %s\nhold: {for: 1s}\nnotify: {command: [/bin/false], events: [held, returned, private, server-refused]}\ndomains:\n  %s: {connect: %q, trust: pin, pins: [%q]}\n  %s: {connect: %q, trust: pin, pins: [%q]}\n  %sgone.example: {connect: \"127.0.0.1:1\"}\n  %snowhere.example:\n",
		w.state, log, domain, s.Addr(), s.Pin(), other, wrong.Addr(), s.Pin(), canary, canary)
	if err := os.Chmod(w.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.process = start(t, "otrproxy", nil, "", binary, "run", "--config", w.conf)
	found := func(pattern string) string {
		t.Helper()
		return regexp.MustCompile(pattern).FindStringSubmatch(w.says(t, pattern))[1]
	}
	w.figures = "http://" + found(`figures are served[^\n]*address"?[=:]"?([0-9.:]+)`)
	w.addr = found(`"?msg"?[=:]"?listening"?[ ,]"?address"?[=:]"?([0-9.:]+)`)
	w.says(t, `msg"?[=:]"?ready`)

	dial := func(who, domain, password string, entry client.Entry) (*client.Client, error) {
		return client.Dial(t.Context(), client.Config{Addr: w.addr, JID: canary + who + "@" + domain, Password: password, Resource: canary + "resource", Entry: entry})
	}
	login := func(who string, entry client.Entry) *client.Client {
		t.Helper()
		c, err := dial(who, domain, canary+"pass", entry)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	alice, bob := login("alice", client.STARTTLS), login("bob", client.Direct)
	told := func(c *client.Client, part string) {
		t.Helper()
		if _, err := c.Wait(func(st *stanza.Stanza) bool { return bytes.Contains(st.Raw, []byte(part)) }); err != nil {
			t.Fatalf("%q: %v", part, err)
		}
	}
	alice.Say(canary+"bob@"+domain, canary+"id", canary+" word")
	told(bob, canary+" word")
	bob.Say(canary+"alice@"+domain, canary+"id2", canary+" back")
	told(alice, canary+" back")
	alice.Say(canary+"bob@"+domain, "", "!otr smp ask "+canary+"? | "+canary)
	told(bob, canary+"?")
	alice.Say(canary+"carol@"+domain, canary+"id3", canary+" for nobody")
	told(alice, "type='error'") // it comes back
	alice.Send("<message to='" + canary + "bob@" + domain + "' id='h'><subject>" + canary + "</subject><x xmlns='urn:" + canary + "'>" + canary + "</x></message>")
	alice.Send("<iq type='set' id='f' to='" + canary + "bob@" + domain + "/x'><si xmlns='http://jabber.org/protocol/si' id='" + canary + "'/></iq>")
	told(alice, "id='f'")
	for _, c := range []struct{ who, domain, password string }{{"alice", domain, canary + "wrong"}, {"alice", other, canary + "pass"}, {"alice", canary + "gone.example", canary + "pass"}, {"alice", canary + "unknown.example", canary + "pass"}, {"eve", domain, canary}, {"alice", canary + "nowhere.example", canary}} {
		if c, err := dial(c.who, c.domain, c.password, client.STARTTLS); err == nil {
			c.Close()
			t.Error("a login that must fail did not")
		}
	}
	raw := func(text string) {
		c, err := client.Open(t.Context(), client.Config{Addr: w.addr, JID: canary + "alice@" + domain, Entry: client.STARTTLS})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Drop()
		c.Send(text)
		for err == nil { // until it is sent away
			_, err = c.Next()
		}
	}
	raw("<" + canary + " xmlns='" + canary + "' a='1' a='2'/>")
	raw("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='" + canary + "'/></stream:stream>")
	s.Cut() // the sessions lose their server
	alice.Err()
	bob.Err()

	get := func(path string) string {
		t.Helper()
		r, err := http.Get(w.figures + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != 200 {
			t.Fatalf("%s: %s %v %s", path, r.Status, err, b)
		}
		return string(b)
	}
	seen, health = get("/metrics"), get("/health")
	w.kill(syscall.SIGTERM)
	return seen, health, w.output()
}

// Who watches a proxy, or reads its log, learns nobody's name and no word, and from the log alone
// which domains there are; the household that asks for names in the log has them there, and
// nowhere else.
func TestWatchedPrivately(t *testing.T) {
	domains := regexp.MustCompile(`(?i)` + canary + `[a-z]+\.example`)
	names := regexp.MustCompile(`(?i)[^\n]*` + canary + `[^\n]*`)
	for _, log := range []string{"{level: debug, format: text, jids: false}", "{level: debug, format: json, jids: false}", "{level: debug, jids: true}"} {
		seen, health, written := watch(t, log)
		for what, text := range map[string]string{"the figures": seen, "the state of health": health} {
			for _, line := range names.FindAllString(text, -1) {
				t.Errorf("log %s: %s say %q", log, what, line)
			}
		}
		if strings.TrimSpace(health) != `{"status":"ok"}` {
			t.Errorf("health: %s", health)
		}
		if strings.Contains(log, "jids: true") {
			if !strings.Contains(written, canary+"alice@"+canary+"domain.example") || strings.Contains(written, canary+" word") || strings.Contains(written, canary+"pass") {
				t.Errorf("with names the log says:\n%s", written)
			}
			continue
		}
		if !strings.Contains(written, "session begins") || strings.Contains(log, "json") != strings.HasPrefix(strings.TrimSpace(written), "{") {
			t.Errorf("this is no log:\n%s", written)
		}
		if !strings.Contains(written, "domain="+canary+"gone.example") && !strings.Contains(written, `"domain":"`+canary+"gone.example") {
			t.Errorf("the log does not name a domain that cannot be reached:\n%s", written)
		}
		for _, line := range names.FindAllString(domains.ReplaceAllString(written, ""), -1) {
			t.Errorf("log %s: %q", log, line)
		}
	}
}

var (
	figure   = regexp.MustCompile(`\b(?:otrproxy|process|go)_[a-z0-9_]+\b`)
	selector = regexp.MustCompile(`\b(otrproxy_[a-z0-9_]+)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`(\w+)(=~|!=|=|!~)"([^"]*)"`)
)

// What the dashboard and the alerts ask for is there, as the running program says it; the
// alerts do what they say.
func TestDashboardAndAlerts(t *testing.T) {
	need.Program(t, "promtool")
	live, _, _ := watch(t, "{level: debug}")
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(live)
	if out, err := check.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	there := map[string]bool{}
	series := strings.Split(live, "\n")
	for _, line := range series {
		if name := figure.FindString(line); name != "" && strings.HasPrefix(line, name) {
			there[name] = true
		}
	}
	dashboard, err := os.ReadFile("../../packaging/grafana/otrproxy.json")
	if err != nil {
		t.Fatal(err)
	}
	var asks []string
	var d struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(dashboard, &d); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, q := range p.Targets {
			asks = append(asks, q.Expr)
		}
	}
	rules, err := os.ReadFile("../../packaging/prometheus/otrproxy.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^ +expr: (.*)$`).FindAllSubmatch(rules, -1) {
		asks = append(asks, string(m[1]))
	}
	if len(asks) < 35 {
		t.Errorf("only %d expressions found", len(asks))
	}
	shown := map[string]bool{}
	for _, expr := range asks {
		for _, name := range figure.FindAllString(expr, -1) {
			shown[name] = true
			if !there[name] {
				t.Errorf("%s asks for %s, which there is not", expr, name)
			}
		}
		for _, sel := range selector.FindAllStringSubmatch(expr, -1) {
			for _, m := range matcher.FindAllStringSubmatch(sel[2], -1) {
				for _, value := range strings.Split(m[3], "|") {
					if m[1] != "job" && !slices.ContainsFunc(series, func(line string) bool {
						return strings.HasPrefix(line, sel[1]+"{") && strings.Contains(line, m[1]+`="`+value+`"`)
					}) {
						t.Errorf("%s asks for %s with %s %q, which there is not", expr, sel[1], m[1], value)
					}
				}
			}
		}
	}
	for name := range there {
		base := strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
		if strings.HasPrefix(name, "otrproxy_") && name != "otrproxy_build_info" && !shown[name] && !shown[base+"_bucket"] {
			t.Errorf("%s stands neither on the dashboard nor in an alert", name)
		}
	}
	if out, err := exec.Command("promtool", "check", "rules", "../../packaging/prometheus/otrproxy.rules.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := exec.Command("promtool", "test", "rules", "../../packaging/prometheus/otrproxy.test.yml").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	tests, err := os.ReadFile("../../packaging/prometheus/otrproxy.test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllSubmatch(rules, -1) {
		if bytes.Count(tests, m[1]) < 2 || !regexp.MustCompile(`alertname: `+string(m[1])+`\n +exp_alerts`).Match(tests) {
			t.Errorf("%s is not tried both ways", m[1])
		}
	}
}
