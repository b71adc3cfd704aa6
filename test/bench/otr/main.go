// Command otr measures our OTR engine beside libotr, in one run: the two take turns,
// so that both meet the same noise. Times are those of both sides together, with
// keys of testdata; the measures are described in libotr_bench.c, which takes those
// of libotr.
package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"otrproxy/otrlayer/otr"
)

var (
	rounds = flag.Int("rounds", 7, "turns each engine gets")
	each   = flag.Duration("each", 400*time.Millisecond, "how long we measure one thing in one turn")
)

const keyFile = "otrlayer/otr/testdata/otr.private_key"

func main() {
	flag.Parse()
	if err := bench(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A measure is one thing that both engines do.
type measure struct {
	name, what string
	run        func(p *pair) error // once
	perRun     float64             // how many of what is counted in a run
	ours       []float64
	libotr     []float64
	allocs     float64
}

func bench() error {
	dir, err := os.MkdirTemp("", "otrproxy-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "libotr_bench")
	if out, err := exec.Command("cc", "-O2", "-o", program, "test/interop/peers/libotr_bench.c", "-lotr", "-lgcrypt").CombinedOutput(); err != nil {
		return fmt.Errorf("libotr_bench could not be built (Debian: libotr5-dev gcc): %w\n%s", err, out)
	}
	oneWay := func(size int) func(*pair) error {
		text := bytes.Repeat([]byte("a"), size)
		return func(p *pair) error { return p.carry(0, text) }
	}
	measures := []*measure{
		{name: "ake", what: "key exchange", run: (*pair).exchange, perRun: 1},
		{name: "oneway100", what: "one way, 100 B", run: oneWay(100), perRun: 1},
		{name: "oneway1k", what: "one way, 1 kB", run: oneWay(1000), perRun: 1},
		{name: "oneway10k", what: "one way, 10 kB", run: oneWay(10000), perRun: 1},
		{name: "alternating", what: "alternating, 100 B", run: func(p *pair) error {
			text := bytes.Repeat([]byte("a"), 100)
			return errors.Join(p.carry(0, text), p.carry(1, text))
		}, perRun: 2},
		{name: "smp", what: "comparing a secret", run: (*pair).compare, perRun: 1},
	}
	people, err := configs()
	if err != nil {
		return err
	}
	var memory []float64 // of libotr
	for range *rounds {
		out, err := exec.Command(program, keyFile, keyFile).Output()
		if err != nil {
			return fmt.Errorf("libotr_bench: %w", err)
		}
		theirs := map[string]float64{}
		for line := range strings.Lines(string(out)) {
			var name string
			var value float64
			if _, err := fmt.Sscan(line, &name, &value); err != nil {
				return fmt.Errorf("libotr_bench says %q: %w", line, err)
			}
			theirs[name] = value
		}
		memory = append(memory, theirs["memory"])
		for _, m := range measures {
			if err := m.take(people); err != nil {
				return fmt.Errorf("%s: %w", m.what, err)
			}
			m.libotr = append(m.libotr, theirs[m.name])
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tlibotr\tours\tours / libotr\tallocations\t")
	for _, m := range measures {
		var ratios []float64
		for i := range m.ours {
			ratios = append(ratios, m.ours[i]/m.libotr[i])
		}
		slices.Sort(ratios)
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f (%.2f-%.2f)\t%.1f\t\n", m.what, nanoseconds(median(m.libotr)), nanoseconds(median(m.ours)), median(ratios), ratios[0], ratios[len(ratios)-1], m.allocs)
	}
	size, err := memoryOfOne(people)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "live conversation\t%.0f B\t%.0f B\t%.2f\t\t\n", median(memory), size, size/median(memory))
	fmt.Fprintf(w, "\t(medians of %d turns; allocations are those of both sides, per run)\t\t\t\t\n", *rounds)
	return w.Flush()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func nanoseconds(ns float64) string {
	return fmt.Sprintf("%.1f us", ns/1000)
}

// take measures our engine once.
func (m *measure) take(configs [2]otr.Config) error {
	p := newPair(configs)
	if err := p.exchange(); err != nil {
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, start := 0, time.Now()
	for ; time.Since(start) < *each; n++ {
		if err := m.run(p); err != nil {
			return err
		}
	}
	m.ours = append(m.ours, float64(time.Since(start).Nanoseconds())/float64(n)/m.perRun)
	runtime.ReadMemStats(&after)
	m.allocs = float64(after.Mallocs-before.Mallocs) / float64(n) / m.perRun
	return nil
}

// A pair is the two ends of a conversation.
type pair struct {
	c      [2]*otr.Conversation
	id     [2]otr.ID // of each one's session
	now    time.Time
	sealed []byte // as the account that encrypts keeps it
}

// configs are those of alice and bob; their keys are read once.
func configs() (out [2]otr.Config, err error) {
	file, err := os.ReadFile(keyFile)
	if err != nil {
		return out, fmt.Errorf("it is to be run from the project's root: %w", err)
	}
	for i, name := range []string{"alice", "bob"} {
		k, err := otr.FindKey(file, func(n, _ string) bool { return n == name+"@example.org" })
		if err != nil {
			return out, err
		}
		out[i] = otr.Config{Key: k, Instance: tags[i], Random: rand.Reader, Versions: func() otr.Versions { return otr.Set(otr.V2, otr.V3) }}
	}
	return out, nil
}

var tags = [2]uint32{0x1000, 0x2000}

func newPair(configs [2]otr.Config) *pair {
	return &pair{c: [2]*otr.Conversation{otr.New(configs[0]), otr.New(configs[1])}, now: time.Unix(1_700_000_000, 0)}
}

// pass gives a message of one side to the other, and what that answers back, until
// both are silent. It returns the text that was read last.
func (p *pair) pass(from int, message []byte) (text []byte, err error) {
	type sent struct {
		from    int
		message []byte
	}
	for queue := []sent{{from, message}}; len(queue) > 0; queue = queue[1:] {
		m := queue[0]
		res, err := p.c[1-m.from].Receive(p.now, otr.Parse(m.message))
		if err != nil {
			return nil, err
		}
		if res.Text != nil {
			text = res.Text
		}
		for _, r := range res.Replies {
			queue = append(queue, sent{1 - m.from, r})
		}
	}
	return text, nil
}

func (p *pair) exchange() error {
	p.now = p.now.Add(time.Minute)
	for _, c := range p.c {
		c.Forget()
	}
	m, err := p.c[1].Commit(p.now, otr.V3)
	if err != nil {
		return err
	}
	if _, err = p.pass(1, m); err != nil {
		return err
	}
	for i, c := range p.c {
		list := c.Sessions()
		if len(list) != 1 {
			return errors.New("no session")
		}
		p.id[i] = list[0].ID
	}
	return nil
}

// carry encrypts a text on one side and reads it on the other.
func (p *pair) carry(from int, text []byte) error {
	var err error
	if p.sealed, err = p.c[from].AppendEncrypt(p.sealed[:0], p.now, p.id[from], text); err != nil {
		return err
	}
	res, err := p.c[1-from].Receive(p.now, otr.Parse(p.sealed))
	if err == nil && !bytes.Equal(res.Text, text) {
		err = errors.New("another text was read")
	}
	return err
}

func (p *pair) compare() error {
	p.now = p.now.Add(time.Minute) // what a peer can make us do is bounded
	m, err := p.c[0].SMPStart(p.now, p.id[0], nil, []byte("secret"))
	if err != nil {
		return err
	}
	if _, err = p.pass(0, m); err != nil {
		return err
	}
	if m, err = p.c[1].SMPAnswer(p.now, p.id[1], []byte("secret")); err != nil {
		return err
	}
	_, err = p.pass(1, m)
	return err
}

// memoryOfOne is the heap that one side of a live conversation takes, after some
// messages each way.
func memoryOfOne(configs [2]otr.Config) (float64, error) {
	const n = 200
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var kept [n]*pair
	before := heap()
	for i := range kept {
		p := newPair(configs)
		if err := p.exchange(); err != nil {
			return 0, err
		}
		for range 3 {
			if err := errors.Join(p.carry(0, []byte("one")), p.carry(1, []byte("two"))); err != nil {
				return 0, err
			}
		}
		kept[i] = p
	}
	size := float64(heap()-before) / (2 * n)
	runtime.KeepAlive(kept)
	return size, nil
}
