package interop

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"otrproxy/otrlayer/otr"
	"otrproxy/test/need"
)

// An implementation is a program the matrix is run against.
type implementation struct {
	name     string
	start    func(testing.TB, settings) peer
	versions []otr.Version
	slow     bool // a comparison of secrets takes seconds: each cell has one, in turn, not all
	deaf     bool // ignores queries for a minute after an exchange (otr3's defect E7): begins again itself
	gives    bool // gives up, instead of finishing, when the secrets differ (otr3, potr)
	sticks   bool // forgets its own D-H Commit when it repeats it (otr3's defect E6)
}

var implementations = []implementation{
	{name: "ours", start: func(t testing.TB, s settings) peer { return newOurs(t, s) }, versions: []otr.Version{otr.V2, otr.V3}},
	{name: "libotr", start: newLibotr, versions: []otr.Version{otr.V2, otr.V3}},
	{name: "otr3", start: newOTR3, versions: []otr.Version{otr.V2, otr.V3}, deaf: true, gives: true, sticks: true},
	{name: "potr", start: newPotr, versions: []otr.Version{otr.V2}, gives: true},
	{name: "otr.js", start: newJS, versions: []otr.Version{otr.V2, otr.V3}, slow: true},
}

// A talk is two peers and what is on its way between them. a is ours.
type talk struct {
	t      testing.TB
	peers  [2]peer
	queue  [2][]string // from a, from b
	events [2][]event  // seen by a, by b
	log    []string
}

func (k *talk) act(who int, words ...string) {
	k.t.Helper()
	k.take(who, k.peers[who].do(k.t, words...))
}

func (k *talk) take(who int, events []event) {
	for _, e := range events {
		if e.kind == "wire" {
			k.queue[who] = append(k.queue[who], e.args[0])
			continue
		}
		k.events[who] = append(k.events[who], e)
	}
}

// deliver hands the oldest message of one side to the other.
func (k *talk) deliver(from int) {
	k.t.Helper()
	m := k.queue[from][0]
	k.queue[from] = k.queue[from][1:]
	if k.log = append(k.log, fmt.Sprintf("%d: %.60s", from, m)); len(k.log) > 5000 {
		k.t.Fatalf("the two never stop: %q", k.log[len(k.log)-20:])
	}
	k.act(1-from, "recv", m)
}

// pump delivers until nothing is left.
func (k *talk) pump() {
	k.t.Helper()
	for len(k.queue[0])+len(k.queue[1]) > 0 {
		if len(k.queue[0]) > 0 {
			k.deliver(0)
		} else {
			k.deliver(1)
		}
	}
}

func (k *talk) reset() { k.events = [2][]event{}; k.log = nil }

// texts are the texts of one kind that a side has seen.
func (k *talk) texts(who int, kind string) (out []string) {
	for _, e := range k.events[who] {
		if e.kind == kind {
			out = append(out, strings.Join(e.args, " "))
		}
	}
	return out
}

func (k *talk) want(who int, kind string, want ...string) {
	k.t.Helper()
	if got := k.texts(who, kind); !slices.Equal(got, want) {
		k.t.Errorf("side %d: %s %.200q, want %.200q; events %.300q; log %.1500q", who, kind, got, want, fmt.Sprint(k.events[who]), k.log)
	}
}

const typed = `hello <b> & "quotes" <3 ü 👍`

// converse exchanges texts both ways, some crossing.
func (k *talk) converse() {
	k.t.Helper()
	k.reset()
	long := strings.Repeat("0123456789", 300)
	k.act(0, "send", typed)
	k.pump()
	k.act(1, "send", typed)
	k.pump()
	k.act(0, "send", "one way")
	k.act(0, "send", "and again")
	k.pump()
	k.act(1, "send", "crossing")
	k.act(0, "send", "messages")
	k.pump()
	k.act(1, "send", long)
	k.pump()
	k.act(0, "send", long)
	k.pump()
	k.want(0, "plain", typed, "crossing", long)
	k.want(1, "plain", typed, "one way", "and again", "messages", long)
	k.want(0, "clear")
	k.want(1, "clear")
}

// secured checks that both are in a private conversation with each other.
func (k *talk) secured(v otr.Version, keys [2]string) {
	k.t.Helper()
	for who := range 2 {
		got := k.texts(who, "secure")
		if len(got) == 0 {
			k.t.Fatalf("side %d is not private: %.300q; log %.2000q", who, fmt.Sprint(k.events[who]), k.log)
		}
		f := strings.Fields(got[len(got)-1])
		if fp := need.Key(k.t, keys[1-who]).Fingerprint().Hex(); !strings.EqualFold(f[0], fp) {
			k.t.Errorf("side %d sees the fingerprint %s, want %s", who, f[0], fp)
		}
		if who == 0 && f[1] != fmt.Sprint(v) {
			k.t.Errorf("version %s, want %d", f[1], v)
		}
	}
}

func (k *talk) open(opening string, starter int) {
	k.t.Helper()
	k.reset()
	switch opening {
	case "query":
		k.act(starter, "query")
	case "tag":
		k.act(starter, "send", "hello in clear")
	}
	k.pump()
}

// An smpRun is one way in which two people compare a secret.
type smpRun struct {
	starter  int
	question bool
	right    bool
	abort    string // "", "asked" (by who was asked), "started" (by who started)
}

func smpRuns() (runs []smpRun) {
	for starter := range 2 {
		for _, question := range []bool{false, true} {
			for _, right := range []bool{true, false} {
				runs = append(runs, smpRun{starter, question, right, ""})
			}
		}
		runs = append(runs, smpRun{starter, false, true, "asked"}, smpRun{starter, true, true, "started"})
	}
	return runs
}

func (k *talk) compare(r smpRun, gives bool) {
	k.t.Helper()
	k.reset()
	other := 1 - r.starter
	last := func(who int) string {
		got := slices.DeleteFunc(k.texts(who, "smp"), func(s string) bool { return strings.HasPrefix(s, "progress") })
		if len(got) == 0 {
			return ""
		}
		return got[len(got)-1]
	}
	want := "ask"
	if r.question {
		k.act(r.starter, "smp", "ask", "the colour?", "blue ü")
		want = "question the colour?"
	} else {
		k.act(r.starter, "smp", "start", "blue ü")
	}
	k.pump()
	if got := last(other); got != want {
		k.t.Fatalf("%+v: asked %q, want %q; events %q", r, got, want, fmt.Sprint(k.events[other]))
	}
	switch r.abort {
	case "asked", "started":
		who := other
		if r.abort == "started" {
			who = r.starter
		}
		k.act(who, "smp", "abort")
		k.pump()
		if got := last(1 - who); got != "abort" {
			k.t.Errorf("%+v: %q, want abort", r, got)
		}
		return
	}
	secret, result := "blue ü", "success"
	if !r.right {
		secret, result = "red", "failure"
	}
	k.act(other, "smp", "answer", secret)
	k.pump()
	for who := range 2 {
		if got := last(who); got != result && (!gives || r.right || got != "abort") {
			k.t.Errorf("%+v: side %d: %q, want %q", r, who, got, result)
		}
	}
}

// The matrix: every implementation x version x opening x who starts x size of
// fragments. In each cell a whole life: talk, comparisons of secrets, a refresh
// while private, the end from either side, a restart of either side, a new
// instance of the other.
func TestMatrix(t *testing.T) {
	var cells, comparisons atomic.Int64
	t.Cleanup(func() { t.Logf("matrix: %d cells, %d comparisons of secrets", cells.Load(), comparisons.Load()) })
	for _, impl := range implementations {
		for _, v := range impl.versions {
			t.Run(fmt.Sprintf("%s/v%d", impl.name, v), func(t *testing.T) {
				t.Parallel()
				turn := 0
				for _, opening := range []string{"query", "tag"} {
					for starter := range 2 {
						for _, frag := range []int{0, 150, 333} {
							runs := smpRuns()
							if impl.slow {
								runs = runs[turn%len(runs) : turn%len(runs)+1]
								turn++
							}
							t.Run(fmt.Sprintf("%s/starter %d/fragments %d", opening, starter, frag), func(t *testing.T) {
								cell(t, impl, v, opening, starter, frag, runs)
								cells.Add(1)
								comparisons.Add(int64(len(runs)))
							})
						}
					}
				}
			})
		}
	}
}

func cell(t *testing.T, impl implementation, v otr.Version, opening string, starter, frag int, runs []smpRun) {
	keys := [2]string{"alice", "bob"}
	set := func(who int, name string, instance uint32) settings {
		return settings{versions: otr.Set(v), tag: opening == "tag" && who == starter, frag: frag, key: name, instance: instance}
	}
	k := &talk{t: t}
	k.peers[0] = newOurs(t, set(0, "alice", 0x1000a))
	k.peers[1] = impl.start(t, set(1, "bob", 0x1000b))

	k.open(opening, starter)
	k.secured(v, keys)
	k.converse()
	for _, r := range runs {
		k.compare(r, impl.gives)
	}
	k.converse()

	// Refresh while private, from either side: a query.
	again := func(who int) int {
		if impl.deaf {
			return 1
		}
		return who
	}
	for who := range 2 {
		k.open("query", again(who))
		k.secured(v, keys)
		k.converse()
	}
	k.extraKey(impl)

	// The end, from either side, and a new beginning.
	for who := range 2 {
		k.reset()
		k.act(who, "end")
		k.pump()
		if got := k.texts(1-who, "finished"); len(got) != 1 {
			t.Errorf("end by side %d: %q", who, fmt.Sprint(k.events))
		}
		k.act(1-who, "end")
		k.pump()
		k.open("query", again(starter))
		k.secured(v, keys)
		k.converse()
	}

	// A restart of either side: what it cannot read it says so, and all begins anew.
	for who := range 2 {
		k.act(who, "restart")
		k.reset()
		k.act(1-who, "send", "lost")
		k.pump()
		if got := k.texts(who, "plain"); slices.Contains(got, "lost") {
			t.Errorf("side %d reads what it has no key for", who)
		}
		k.open("query", again(starter))
		k.secured(v, keys)
		k.converse()
	}

	// The other side comes back as another instance.
	k.act(1, "instance", "0001000c")
	k.open("query", again(starter))
	k.secured(v, keys)
	k.converse()
}

func (k *talk) extraKey(impl implementation) {
	if impl.name == "potr" || impl.name == "otr.js" {
		return // they have none, or one of their own
	}
	for who := range 2 {
		k.reset()
		k.act(who, "symkey", "7", "use data")
		k.pump()
		mine, theirs := k.texts(who, "symkey"), k.texts(1-who, "symkey")
		if len(theirs) != 1 || len(mine) > 0 && mine[0] != theirs[0] || !strings.HasPrefix(theirs[0], "7 ") || !strings.HasSuffix(theirs[0], " use data") {
			k.t.Errorf("extra key: %q and %q", mine, theirs)
		}
	}
}
