// Package interop holds our OTR engine against others: libotr 4 (a C program on
// pipes), otr3 (in this process), python-potr and the JavaScript module otr.
package interop

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"otrproxy/otrlayer/otr"
	"otrproxy/test/need"
)

// An event is what a peer reports: its kind, and arguments as they are meant (not
// in hex).
type event struct {
	kind string
	args []string
}

// A peer is one implementation of OTR, driven by the words that
// peers/libotr_peer.c lists: recv, send, query, smp, end, symkey, restart,
// instance. What it sends are its events "wire".
type peer interface {
	do(t testing.TB, words ...string) []event
}

// settings are what a peer is started with.
type settings struct {
	versions otr.Versions
	tag      bool // offers OTR by the whitespace tag
	frag     int  // longest message it sends, 0 for no limit
	key      string
	instance uint32
}

// keyFile writes the key of a name as that of an account.
func keyFile(t testing.TB, name, account string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "otr.private_key")
	if err := os.WriteFile(path, need.KeyFile(t, name, account, "prpl-jabber"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ours is our engine with the least that a client has to do around it.
type ours struct {
	settings
	conv    *otr.Conversation
	clock   time.Time
	private bool // a private conversation is there, or was ended by the other side
	plain   bool // the other side answered the tag in plain
	last    otr.ID
}

func newOurs(t testing.TB, s settings) *ours {
	o := &ours{settings: s, clock: time.Unix(1_700_000_000, 0)}
	o.forget(t)
	return o
}

func (o *ours) forget(t testing.TB) {
	o.private, o.plain = false, false
	o.conv = otr.New(otr.Config{Key: need.Key(t, o.key), Instance: o.instance, Random: rand.Reader, Versions: func() otr.Versions { return o.versions }})
}

func (o *ours) do(t testing.TB, words ...string) (out []event) {
	t.Helper()
	o.clock = o.clock.Add(3 * time.Second)
	wire := func(m []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("ours: %v: %v", words[0], err)
		}
		if m == nil {
			return
		}
		pieces, err := otr.Split(m, o.frag)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pieces {
			out = append(out, event{"wire", []string{string(p)}})
		}
	}
	add := func(kind string, args ...string) { out = append(out, event{kind, args}) }
	switch verb := strings.Join(words[:min(2, len(words))], " "); {
	case words[0] == "recv":
		o.receive(words[1], wire, add)
	case words[0] == "send":
		if o.private {
			wire(o.conv.Encrypt(o.clock, o.last, []byte(words[1])))
			break
		}
		text := words[1]
		if o.tag && !o.plain {
			text += otr.WhitespaceTag(o.versions)
		}
		add("wire", text)
	case words[0] == "query":
		wire(otr.NewQuery(o.versions, "please"), nil)
	case words[0] == "end":
		wire(o.conv.End(o.clock, o.last))
		o.private = false
	case words[0] == "restart":
		o.forget(t)
	case words[0] == "instance":
		fmt.Sscanf(words[1], "%x", &o.instance)
		o.forget(t)
	case verb == "smp start":
		wire(o.conv.SMPStart(o.clock, o.last, nil, []byte(words[2])))
	case verb == "smp ask":
		wire(o.conv.SMPStart(o.clock, o.last, &words[2], []byte(words[3])))
	case verb == "smp answer":
		wire(o.conv.SMPAnswer(o.clock, o.last, []byte(words[2])))
	case verb == "smp abort":
		wire(o.conv.SMPAbort(o.clock, o.last))
	case words[0] == "symkey":
		var use uint32
		fmt.Sscan(words[1], &use)
		key, m, err := o.conv.ShareExtraKey(o.clock, o.last, use, []byte(words[2]))
		wire(m, err)
		add("symkey", words[1], string(key[:]), words[2])
	default:
		t.Fatalf("ours: unknown words %q", words)
	}
	return out
}

func (o *ours) receive(text string, wire func([]byte, error), add func(string, ...string)) {
	m := otr.Parse([]byte(text))
	begin := func() {
		if v := m.Versions.Best(o.versions); v != 0 {
			wire(o.conv.Commit(o.clock, v))
		}
	}
	switch m.Kind {
	case otr.Plain:
		o.plain = true
		add("clear", text)
	case otr.Tagged:
		clean, _, _ := otr.CutTag([]byte(text))
		add("clear", string(clean))
		if !o.private {
			begin()
		}
	case otr.Query:
		begin()
	case otr.Error:
		add("error", text)
		wire(otr.NewQuery(o.versions, ""), nil)
	case otr.Fragment:
		whole, ok, err := o.conv.Assemble(o.clock, m)
		if err != nil {
			add("refused", err.Error())
		}
		if ok {
			o.encoded(whole, wire, add)
		}
	case otr.Encoded:
		o.encoded(m, wire, add)
	default:
		add("refused", text)
	}
}

func (o *ours) encoded(m otr.Message, wire func([]byte, error), add func(string, ...string)) {
	res, err := o.conv.Receive(o.clock, m)
	switch {
	case err == otr.ErrUnreadable && !m.Ignorable:
		add("unreadable")
		wire(otr.NewError("unreadable"), nil)
	case err != nil && err != otr.ErrUnreadable:
		add("refused", err.Error())
	}
	for _, r := range res.Replies {
		wire(r, nil)
	}
	if res.Text != nil {
		add("plain", string(res.Text))
	}
	for _, e := range res.Events {
		switch e.Kind {
		case otr.Secured:
			o.private, o.last = true, e.Session.ID
			refresh := "0"
			if e.Before != nil && !e.Before.Finished {
				refresh = "1"
			}
			add("secure", e.Session.Fingerprint.Hex(), fmt.Sprint(e.Session.Version), refresh)
		case otr.Ended:
			add("finished")
			o.private = false
		case otr.SMPAsked:
			if e.HasQuestion {
				add("smp", "question", e.Question)
			} else {
				add("smp", "ask")
			}
		case otr.SMPSuccess:
			add("smp", "success")
		case otr.SMPFailure:
			add("smp", "failure")
		case otr.SMPAborted:
			add("smp", "abort")
		case otr.SMPCheated:
			add("smp", "cheated")
		case otr.ExtraKey:
			add("symkey", fmt.Sprint(e.Use), string(e.Key[:]), string(e.UseData))
		}
	}
}

// piped is a program on pipes.
type piped struct {
	name string
	in   io.WriteCloser
	out  *bufio.Reader
}

// startPiped starts a program; it ends when its standard input does.
func startPiped(t testing.TB, s settings, name string, argv ...string) *piped {
	t.Helper()
	argv = append(argv, "--key", keyFile(t, s.key, "peer@example.org"), "--instance", fmt.Sprintf("%08x", s.instance), "--frag", fmt.Sprint(s.frag))
	for _, v := range []otr.Version{otr.V2, otr.V3} {
		if s.versions.Has(v) {
			argv = append(argv, fmt.Sprintf("--v%d", v))
		}
	}
	if s.tag {
		argv = append(argv, "--tag")
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		stuck := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		cmd.Wait()
		stuck.Stop()
	})
	return &piped{name, in, bufio.NewReaderSize(out, 1<<20)}
}

// patience is how long a program may take for one step.
const patience = 60 * time.Second

func (p *piped) do(t testing.TB, words ...string) (out []event) {
	t.Helper()
	line := slices.Clone(words)
	first := 1
	if words[0] == "smp" || words[0] == "symkey" {
		first = 2
	}
	if words[0] == "instance" {
		first = len(words)
	}
	for i := first; i < len(line); i++ {
		if line[i] = hex.EncodeToString([]byte(line[i])); line[i] == "" {
			line[i] = "-"
		}
	}
	if _, err := fmt.Fprintln(p.in, strings.Join(line, " ")); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	type result struct {
		line string
		err  error
	}
	for {
		got := make(chan result, 1)
		go func() {
			l, err := p.out.ReadString('\n')
			got <- result{strings.TrimRight(l, "\n"), err}
		}()
		var r result
		select {
		case r = <-got:
		case <-time.After(patience):
			t.Fatalf("%s does not answer %q", p.name, words)
		}
		if r.err != nil {
			t.Fatalf("%s, after %q: %v", p.name, words, r.err)
		}
		f := strings.Fields(r.line)
		switch {
		case r.line == "ok":
			return out
		case f[0] == "err":
			t.Fatalf("%s: %q: %s", p.name, words, r.line)
		}
		e := event{kind: f[0], args: f[1:]}
		for i, a := range e.args {
			if e.kind == "secure" || e.kind == "fp" || e.kind == "smp" && i == 0 || e.kind == "symkey" && i == 0 || e.kind == "smp" && e.args[0] == "progress" {
				continue
			}
			if a == "-" {
				e.args[i] = ""
			} else if b, err := hex.DecodeString(a); err == nil {
				e.args[i] = string(b)
			}
		}
		out = append(out, e)
	}
}

// programs are the C programs, built once; those that could not be built are not in
// it.
var programs = map[string]string{}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "otrproxy-interop")
	if err != nil {
		panic(err)
	}
	for _, name := range []string{"libotr_peer", "libotr_files"} {
		path := filepath.Join(dir, name)
		if out, err := exec.Command("cc", "-O2", "-Wall", "-o", path, "peers/"+name+".c", "-lotr", "-lgcrypt").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s could not be built: %v\n%s", name, err, out)
			continue
		}
		programs[name] = path
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func newLibotr(t testing.TB, s settings) peer {
	t.Helper()
	if programs["libotr_peer"] == "" {
		need.Missing(t, "libotr5-dev")
	}
	return startPiped(t, s, "libotr", programs["libotr_peer"])
}

func newPotr(t testing.TB, s settings) peer {
	t.Helper()
	need.PythonModule(t, "potr")
	return startPiped(t, s, "potr", need.Python, "peers/potr_peer.py")
}

func newJS(t testing.TB, s settings) peer {
	t.Helper()
	need.Program(t, "node")
	if _, err := os.Stat("peers/node_modules/otr"); err != nil {
		need.Missing(t, "npm otr")
	}
	return startPiped(t, s, "otr.js", "node", "peers/otrjs_peer.js")
}
