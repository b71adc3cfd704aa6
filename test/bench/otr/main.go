// Command otr says what our OTR engine costs, as libotr_bench.c says it of libotr, where the
// measures are described: a line "NAME NANOSECONDS ALLOCATIONS" for each, both sides
// together, with keys of testdata, and last "memory BYTES". The benchmark has the two
// take turns.
package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"otrproxy/otrlayer/otr"
)

var each = flag.Duration("each", 400*time.Millisecond, "how long one thing is measured")

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
	name   string
	run    func(p *pair) error // once
	perRun float64             // how many of what is counted in a run
}

func bench() error {
	oneWay := func(size int) func(*pair) error {
		text := bytes.Repeat([]byte("a"), size)
		return func(p *pair) error { return p.carry(0, text) }
	}
	people, err := configs()
	if err != nil {
		return err
	}
	for _, m := range []measure{
		{"ake", (*pair).exchange, 1},
		{"oneway100", oneWay(100), 1},
		{"oneway1k", oneWay(1000), 1},
		{"oneway10k", oneWay(10000), 1},
		{"alternating", func(p *pair) error {
			text := bytes.Repeat([]byte("a"), 100)
			return errors.Join(p.carry(0, text), p.carry(1, text))
		}, 2},
		{"smp", (*pair).compare, 1},
	} {
		if err := m.take(people); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	size, err := memoryOfOne(people)
	if err != nil {
		return err
	}
	fmt.Printf("memory %.0f 0\n", size)
	return nil
}

// take measures one thing and prints it.
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
	took := float64(time.Since(start).Nanoseconds())
	runtime.ReadMemStats(&after)
	runs := float64(n) * m.perRun
	fmt.Printf("%s %.0f %.1f\n", m.name, took/runs, float64(after.Mallocs-before.Mallocs)/runs)
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
// both are silent.
func (p *pair) pass(from int, message []byte) error {
	type sent struct {
		from    int
		message []byte
	}
	for queue := []sent{{from, message}}; len(queue) > 0; queue = queue[1:] {
		m := queue[0]
		res, err := p.c[1-m.from].Receive(p.now, otr.Parse(m.message))
		if err != nil {
			return err
		}
		for _, r := range res.Replies {
			queue = append(queue, sent{1 - m.from, r})
		}
	}
	return nil
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
	if err = p.pass(1, m); err != nil {
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
	if err = p.pass(0, m); err != nil {
		return err
	}
	if m, err = p.c[1].SMPAnswer(p.now, p.id[1], []byte("secret")); err != nil {
		return err
	}
	return p.pass(1, m)
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
