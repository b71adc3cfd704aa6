package control

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// echo answers with the arguments it was given.
func echo(_ context.Context, c Call) (Reply, error) {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c.Args)) {
		b.WriteString(k + "=" + c.Args[k] + ";")
	}
	return Reply{Text: b.String(), Data: []int{1}}, nil
}

var table = Table{
	{Name: "pin", Help: "one word", Run: echo},
	{Name: "pin add", Args: []Arg{{Name: "domain"}, {Name: "pin", Optional: true}, {Name: "next", Kind: Flag}, {Name: "from", Kind: Option}}, Help: "two words", Run: echo},
	{Name: "contact verify", Short: "verify", Args: []Arg{{Name: "account", Kind: Account}, {Name: "contact", Kind: Contact}, {Name: "fingerprint", Kind: Rest, Optional: true}}, Help: "verifies", Chat: true, Run: echo},
	{Name: "smp start", Args: []Arg{{Name: "account", Kind: Account}, {Name: "contact", Kind: Contact}, {Name: "secret", Kind: Secret}}, Help: "starts", Chat: true, Run: echo},
	{Name: "smp ask", Args: []Arg{{Name: "account", Kind: Account}, {Name: "contact", Kind: Contact}, {Name: "question", Kind: Rest}, {Name: "secret", Kind: Secret}}, Help: "asks", Chat: true, Run: echo},
	{Name: "held list", Short: "held", Args: []Arg{{Name: "account", Kind: Account, Optional: true}, {Name: "contact", Kind: Contact, Optional: true}}, Help: "lists", Chat: true, Run: echo},
	{Name: "held send", Short: "send", Args: []Arg{{Name: "account", Kind: Account}, {Name: "contact", Kind: Contact}}, Help: "sends", Chat: true, Run: echo},
	{Name: "pin probe", Args: []Arg{{Name: "domain"}, {Name: "pin", Optional: true}, {Name: "next", Kind: Flag}, {Name: "via", Kind: Option}}, Admin: true, Run: echo},
	{Name: "broken", Run: func(context.Context, Call) (Reply, error) { return Reply{}, errors.New("it is broken") }},
}

var (
	inChat    = Actor{Place: InChat, Account: "alice@x", Contact: "bob@y"}
	admin     = Actor{Place: InChat, Account: "alice@x", Contact: "bob@y", Admin: true}
	inService = Actor{Place: InService, Account: "alice@x"}
	inShell   = Actor{Place: InShell}
)

func TestLine(t *testing.T) {
	for _, c := range []struct {
		a    Actor
		line string
		want string // or a part of the error, behind !
	}{
		{inChat, "verify 01 23", "account=alice@x;contact=bob@y;fingerprint=01 23;"},
		{inChat, "contact verify 01", "account=alice@x;contact=bob@y;fingerprint=01;"},
		{inChat, "verify", "account=alice@x;contact=bob@y;"},
		{inChat, "smp start  two  blanks ", "account=alice@x;contact=bob@y;secret= two  blanks ;"},
		{inChat, "smp ask who? | who | me | you", "account=alice@x;contact=bob@y;question=who? | who | me;secret=you;"},
		{inChat, "smp ask who?", "!then \" | \""},
		{inChat, "smp ask  | x", "!QUESTION is missing"},
		{inChat, "smp start", "!SECRET is missing; write !otr smp start SECRET"},
		{inChat, "held", "account=alice@x;contact=bob@y;"},
		{inChat, "held send", "account=alice@x;contact=bob@y;"},
		{inChat, "send now", "!more than the command takes; write !otr send"},
		{inService, "held", "account=alice@x;"},
		{inService, "verify carol@z 01 23", "account=alice@x;contact=carol@z;fingerprint=01 23;"},
		{inService, "verify", "!CONTACT is missing; write verify CONTACT [FINGERPRINT]"},
		{inService, "smp start carol@z s3cret", "account=alice@x;contact=carol@z;secret=s3cret;"},
		{inChat, "pin add example.org", "!administrator of this proxy, on the machine it runs on: otrproxy pin add DOMAIN [PIN]"},
		{inChat, "pin probe example.org", "!for the administrator"},
		{admin, "pin add example.org", "!for the administrator"},
		{admin, "pin probe  example.org  sha256:x --next", "domain=example.org;next=yes;pin=sha256:x;"},
		{admin, "pin probe --next example.org --via socks5://x", "domain=example.org;next=yes;via=socks5://x;"},
		{admin, "pin probe example.org --via", "!--via needs a value"},
		{admin, "pin probe example.org --nxet", "!no option \"--nxet\""},
		{admin, "pin probe example.org a b", "!more than the command takes"},
		{inChat, "verify --next", "account=alice@x;contact=bob@y;fingerprint=--next;"},
		{inChat, "pinx", "!there is no command \"pinx\"; !otr help lists them"},
		{inChat, "smp", "!there is no command \"smp\""},
		{inChat, "nonsense\x00", "!no command"},
		{inChat, "verify 0\x001", "!character in it that no text has"},
	} {
		r, err := table.Line(t.Context(), c.a, c.line)
		if wrong, ok := strings.CutPrefix(c.want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), wrong) {
				t.Errorf("%q: %q %v", c.line, r.Text, err)
			}
			continue
		}
		if err != nil || r.Text != c.want {
			t.Errorf("%q: %q %v", c.line, r.Text, err)
		}
	}
}

// A person reaches their own account, and no command of the administrator's, whatever
// place they write from and whatever they put into a form.
func TestOnlyOneself(t *testing.T) {
	for _, place := range []Place{InChat, InService, InMenu} {
		a := Actor{Place: place, Account: "alice@x"}
		for name, args := range map[string]map[string]string{
			"pin":       nil,
			"pin add":   {"domain": "example.org"},
			"broken":    nil,
			"held send": {"account": "mallory@x", "contact": "bob@y"},
			"held list": {"account": "mallory@x"},
		} {
			if r, err := table.Run(t.Context(), a, name, args); !errors.Is(err, ErrForbidden) {
				t.Errorf("%d %s: %q %v", place, name, r.Text, err)
			}
		}
		if r, err := table.Run(t.Context(), a, "held list", nil); err != nil || r.Text != "account=alice@x;" {
			t.Errorf("%q %v", r.Text, err)
		}
	}
	if _, err := table.Run(t.Context(), inShell, "pin add", map[string]string{"domain": "x", "other": "y"}); !errors.Is(err, ErrUsage) {
		t.Errorf("%v", err)
	}
}

func TestHelp(t *testing.T) {
	help := table.Help(inChat)
	if strings.Contains(help, "pin") || !strings.Contains(help, "!otr verify [FINGERPRINT] - verifies") || !strings.Contains(help, "!otr smp ask QUESTION | SECRET - asks") {
		t.Error(help)
	}
	if help := table.Help(inShell); !strings.Contains(help, "otrproxy smp ask ACCOUNT CONTACT QUESTION - asks") || !strings.Contains(help, "otrproxy pin add DOMAIN [PIN] [--next] [--from FROM]") {
		t.Error(help)
	}
	call := Call{Actor: inShell, Args: map[string]string{"account": "alice@x", "contact": "bob@y"}, table: table}
	if how := call.How("contact verify", "fingerprint", "01"); how != "otrproxy contact verify alice@x bob@y 01" {
		t.Error(how)
	}
	if how := call.How("smp start", "secret", "s3cret"); strings.Contains(how, "s3cret") {
		t.Error(how)
	}
	for _, f := range table.Get("smp start").Fields(inService, map[string]string{"contact": "c@d", "secret": "s3cret"}) {
		if f.Name == "account" || f.Value == "s3cret" || f.Name == "contact" && f.Value != "c@d" {
			t.Errorf("%+v", f)
		}
	}
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{"verify 01 23", "smp ask a | b", "held send", "contact verify", " \t", "pin add x", "smp start \x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, a := range []Actor{inChat, inService} {
			r, err := table.Line(t.Context(), a, line)
			if err == nil && strings.Contains(r.Text, "account=") && !strings.Contains(r.Text, "account=alice@x;") {
				t.Errorf("%q reached %s", line, r.Text)
			}
		}
	})
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	os.WriteFile(path, []byte("left behind"), 0o600)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if st, _ := os.Stat(path); st.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v", st.Mode())
	}
	go table.Serve(t.Context(), l)
	if r, err := Ask(path, "pin add", map[string]string{"domain": "x y", "pin": "z\n"}); err != nil || r.Text != "domain=x y;pin=z;" {
		t.Errorf("%v %v", r, err)
	}
	if r, err := Ask(path, "smp start", map[string]string{"account": "a@b", "contact": "c@d", "secret": " s "}); err != nil || r.Text != "account=a@b;contact=c@d;secret= s ;" {
		t.Errorf("%v %v", r, err)
	}
	if _, err := Ask(path, "nonsense", nil); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "otrproxy help") {
		t.Errorf("%v", err)
	}
	if _, err := Ask(path, "broken", nil); err == nil || err.Error() != "it is broken" {
		t.Errorf("%v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte(strings.Repeat("x", maxRequest) + "\n"))
	var res response
	if json.NewDecoder(c).Decode(&res); res.Error != "not a request" {
		t.Errorf("%+v", res)
	}
	if _, err := Ask(path+"x", "pin", nil); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "otrproxy run") {
		t.Errorf("%v", err)
	}
	if _, err := Listen("/" + strings.Repeat("x", 120)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("%v", err)
	}
}
