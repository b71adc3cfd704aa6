package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBadFiles(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	if len(files) < 30 {
		t.Fatalf("only %d files", len(files))
	}
	for _, file := range files {
		want, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		_, err = Load(file)
		if err == nil {
			t.Errorf("%s: accepted", file)
		} else if got := strings.TrimPrefix(err.Error(), file+":"); got != strings.TrimSpace(string(want)) {
			t.Errorf("%s:\n got %s\nwant %s", file, got, want)
		}
	}
}

const contract = `
listen: ["127.0.0.1:5222"]
state: /var/lib/otrproxy
web: ""
metrics: ""
log: {level: info, format: text, jids: false}
domains:
  example.org:
    connect: "xmpp.example.org:5222"
    tls: auto
    trust: pin
    pins: ["sha256:00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f", "spki-sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]
    via: ""
    plain_upstream: false
  bücher.example:
otr:
  - {account: "*@example.org", contact: "*@sms.example.org", policy: never}
  - {account: "*", contact: "*", policy: require, allow: [groupchat]}
hold: {messages: 100, bytes: 1MiB, for: 10m}
limits: {sessions: 200, stanza: 256KiB, login: 30s}
`

func TestContract(t *testing.T) {
	c, err := Parse("x.yaml", []byte(contract))
	if err != nil {
		t.Fatal(err)
	}
	d, ok := c.Domain("example.org")
	if !ok || d.Trust != TrustPin || len(d.Pins) != 2 || d.Pins[0].Sum != d.Pins[1].Sum || d.Pins[0].SPKI || !d.Pins[1].SPKI {
		t.Errorf("domain %+v", d)
	}
	for _, p := range d.Pins {
		if q, err := ParsePin(p.String()); err != nil || q != p {
			t.Errorf("%s is not read back: %v", p, err)
		}
	}
	if _, ok := c.Domain("elsewhere.org"); ok {
		t.Error("a domain that is not listed is allowed")
	}
	if d, ok := c.Domain("bücher.example"); !ok || d.Trust != TrustTOFU {
		t.Errorf("%+v", d)
	}
	if c.Hold.Bytes != 1<<20 || c.Hold.For != 10*time.Minute || c.Limits.Stanza != 256<<10 {
		t.Errorf("%+v %+v", c.Hold, c.Limits)
	}
	if r := c.RuleFor("a@example.org", "123@sms.example.org"); r.Policy != Never {
		t.Errorf("%+v", r)
	}
	if r := c.RuleFor("a@example.org", "b@example.org"); r.Policy != Require || !r.Allows(Groupchat) || r.Allows(Receipts) {
		t.Errorf("%+v", r)
	}
}

func TestVersionsAndIdle(t *testing.T) {
	c, err := Parse("x", []byte("idle: 12h\notr:\n  - {contact: \"*@new.example\", policy: require, versions: [3]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Idle != 12*time.Hour || Default().Idle != 72*time.Hour {
		t.Errorf("idle %v, by default %v", c.Idle, Default().Idle)
	}
	if v := c.RuleFor("a@b", "x@new.example").Versions; len(v) != 1 || v[0] != 3 {
		t.Errorf("versions %v", v)
	}
	if v := c.RuleFor("a@b", "x@old.example").Versions; v != nil {
		t.Errorf("versions by default %v", v)
	}
}

func TestNoMatchIsRequire(t *testing.T) {
	c, err := Parse("x", []byte("otr: [{account: a@b, contact: c@d, policy: never}]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, contact := range []string{"x@y", "c@d.evil", "xc@d", ""} {
		if r := c.RuleFor("a@b", contact); r.Policy != Require {
			t.Errorf("%s: %s", contact, r.Policy)
		}
	}
	if r := Default().RuleFor("a@b", "c@d"); r.Policy != Require || r.Allows(Groupchat) || r.Allows(Files) {
		t.Errorf("default %+v", r)
	}
	if !Policy("").Requires() {
		t.Error("the zero policy lets text pass")
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, jid string
		want         bool
	}{
		{"*", "a@b", true}, {"*", "", true}, {"a@b", "a@b", true}, {"a@b", "A@B", true}, {"a@b", "a@bc", false},
		{"*@b", "a@b", true}, {"*@b", "a@b.c", false}, {"a*c@*", "abc@d", true}, {"a*a", "a", false}, {"*a*", "bab", true}, {"a*b*c", "a-c-b", false},
	} {
		if got := match(c.pattern, c.jid); got != c.want {
			t.Errorf("%s ~ %s: %v", c.pattern, c.jid, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(contract))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse("f", b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("no place in %q", err)
			}
			return
		}
		if len(c.Listen) == 0 || c.Limits.Stanza < 10_000 {
			t.Errorf("accepted %q", b)
		}
	})
}

func TestClearAndHandsOff(t *testing.T) {
	c, err := Parse("x", []byte("otr:\n  - {contact: \"*@a.example\", policy: require, clear: drop}\n  - {contact: \"*@b.example\", policy: require, clear: mark}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for contact, want := range map[string]bool{"x@a.example": true, "x@b.example": false, "x@c.example": false} {
		if got := c.RuleFor("me@z", contact).Drop; got != want {
			t.Errorf("%s: %v", contact, got)
		}
	}
	if _, err := Parse("x", []byte("otr:\n  - {policy: require, clear: hide}\n")); err == nil || !strings.Contains(err.Error(), `x:2: "hide" is not one of: mark, drop`) {
		t.Errorf("%v", err)
	}
	for text, want := range map[string]bool{
		"":                       false,
		"otr: [{policy: never}]": true,
		"otr: [{account: \"*@z\", policy: never}]":                                   true,
		"otr: [{account: \"*@y\", policy: never}]":                                   false,
		"otr: [{contact: \"*@a\", policy: never}]":                                   false,
		"otr: [{contact: \"*@a\", policy: never}, {policy: never}]":                  true,
		"otr: [{contact: \"*@a\", policy: require}, {policy: never}]":                false,
		"otr: [{account: \"*@y\", policy: require}, {account: me@z, policy: never}]": true,
	} {
		c, err := Parse("x", []byte(text))
		if err != nil || c.HandsOff("me@z") != want {
			t.Errorf("%s: %v, want %v (%v)", text, c.HandsOff("me@z"), want, err)
		}
	}
}

func TestNames(t *testing.T) {
	c, err := Parse("x", []byte("names: [OTRproxy.lan, 192.168.1.2, 'FD00::0:2', '::ffff:10.0.0.1', bücher.home.arpa, raspberrypi]\nonboarding: \"0.0.0.0:5288\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Names, " "); got != "otrproxy.lan 192.168.1.2 fd00::2 10.0.0.1 xn--bcher-kva.home.arpa raspberrypi" {
		t.Errorf("names %s", got)
	}
	if c.Onboarding != "0.0.0.0:5288" || Default().Onboarding != "" {
		t.Errorf("onboarding %q, by default %q", c.Onboarding, Default().Onboarding)
	}
	for _, bad := range []string{"0.0.0.0", "::", "fe80::1%eth0", "224.0.0.1", "http://box", "*.lan", "a b", "''", "10.1", "[fd00::1]"} {
		if _, err := Parse("x", []byte("names: [\""+strings.Trim(bad, "'")+"\"]")); err == nil {
			t.Errorf("%s is a name", bad)
		}
	}
}

// An address of one link is told by its network like any other, whatever its zone.
func TestAccessFromALink(t *testing.T) {
	cfg, err := Parse("x.yaml", []byte("access:\n  - {from: [\"fe80::/10\"], refuse: \"not from here\"}\n  - {account: \"*\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]bool{"fe80::1%eth0": false, "fe80::1": false, "fd00::1": true, "::ffff:192.0.2.1": true} {
		if ok, why := cfg.MayUse("alice@example.org", netip.MustParseAddr(from)); ok != want || !ok && why != "not from here" {
			t.Errorf("%s: %v %q", from, ok, why)
		}
	}
}

// Who gives servers longer to answer need not think of how an idle one is asked.
func TestAliveGoesWithAnswer(t *testing.T) {
	for text, alive := range map[string]time.Duration{
		"limits: {answer: 60s}":             5 * time.Minute,
		"limits: {answer: 4m}":              8 * time.Minute,
		"limits: {answer: 4m, alive: 20m}":  20 * time.Minute,
		"limits: {answer: 4m, alive: 0}":    0,
		"limits: {alive: 30m, answer: 10m}": 30 * time.Minute,
	} {
		if c, err := Parse("x", []byte(text)); err != nil || c.Limits.Alive != alive {
			t.Errorf("%s: %v %v", text, c.Limits.Alive, err)
		}
	}
}
