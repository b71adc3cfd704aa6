//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/test/client"
	"otrproxy/test/server"
)

// What many cost: the memory of idle sessions beside that of a plain TLS copy, logins a
// second, and how long others wait while somebody floods the proxy. Clients and server
// are this process; what stands between them is one of its own, and memory is that one's
// alone. All of them share the machine's cores.

var (
	idle   = flag.Int("idle", 1000, "load: idle sessions")
	logins = flag.Int("logins", 3000, "load: logins that are timed")
)

func loadUser(n int) string { return "user" + strconv.Itoa(n) }

// everybodysKeys gives all accounts a key: the same one, for making one takes a while.
func everybodysKeys(state string, n int) error {
	first := loadUser(0) + "@" + domain
	a, err := otrlayer.Open(state, first, func() otrlayer.Settings { return otrlayer.Settings{} }, deaf{}, nil, nil)
	if err != nil {
		return err
	}
	a.Prepare()
	<-a.Ready()
	a.Close()
	key, err := os.ReadFile(filepath.Join(otrlayer.Dir(state, first), "otr.private_key"))
	if err != nil {
		return err
	}
	for i := range n {
		own := loadUser(i) + "@" + domain
		dir := otrlayer.Dir(state, own)
		err := errors.Join(os.MkdirAll(dir, 0o700),
			os.WriteFile(filepath.Join(dir, "otr.private_key"), bytes.ReplaceAll(key, []byte(first), []byte(own)), 0o600),
			os.WriteFile(filepath.Join(dir, "service"), []byte("greeted\n"), 0o600))
		if err != nil {
			return err
		}
	}
	return nil
}

type deaf struct{}

func (deaf) Handshake(string)                {}
func (deaf) Swallowed()                      {}
func (deaf) Log(int, string, error)          {}
func (deaf) Happened(string, otrlayer.Event) {}

func load() error {
	debug.SetGCPercent(400) // clients and server take no more of the cores than they must
	dir, err := os.MkdirTemp("", "otrproxy-load")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	people := map[string]string{"alice": "secret", "bob": "secret"}
	for i := range *idle {
		people[loadUser(i)] = "secret"
	}
	s, err := server.Start(server.Config{Domain: domain, Users: people, Mechanisms: []string{"SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"}, Curves: []tls.CurveID{tls.X25519}, Forget: true, Strangers: true}) // what Debian 12's servers have
	if err != nil {
		return err
	}
	defer s.Close()
	state := filepath.Join(dir, "state")
	if err := everybodysKeys(state, *idle); err != nil {
		return err
	}
	bin, err := build(dir)
	if err != nil {
		return err
	}
	pemFile := filepath.Join(dir, "cert.pem")
	if err := writePEM(pemFile); err != nil {
		return err
	}
	conf := filepath.Join(dir, "otrproxy.yaml")
	text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\nlog: {level: info}\ndomains: {%s: {connect: %q, tls: direct, trust: pin, pins: [%q]}}\nlimits: {sessions: 20000, accounts: 100000}\n", state, domain, s.Addr(), s.Pin())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	floor, err := startThing("Go TLS copy", strings.TrimSpace, self, "floor", pemFile, s.Addr())
	if err != nil {
		return err
	}
	defer floor.stop()
	box, err := startThing("otrproxy", listening, bin, "run", "--config", conf)
	if err != nil {
		return err
	}
	defer box.stop()

	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\tbefore\tafter\teach\tx floor\t\n")
	base := 0
	for _, t := range []*thing{floor, box} {
		before, after, err := t.sleepers()
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		each := (after - before) / *idle
		if base == 0 {
			base = each
		}
		fmt.Fprintf(w, "%d idle, %s\t%d kB\t%d kB\t%.1f kB\t%.2f\t\n", *idle, t.name, before>>10, after>>10, float64(each)/1024, float64(each)/float64(base))
	}
	w.Flush()

	w = tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\tlogins a second\tmedian\tp99\tCPU each\t\n")
	for _, t := range []*thing{floor, box} {
		rate, waits, cpu, err := t.logins()
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.1f ms\t%.1f ms\t%.2f ms\t\n", t.name, rate, us(waits[len(waits)/2])/1e3, us(waits[len(waits)*99/100])/1e3, us(cpu)/1e3)
	}
	w.Flush()
	box.stop()
	floor.stop()

	w = tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\tothers' median before\tduring\tx\tflood\t\n")
	for _, limits := range []string{"sessions: 200", "sessions: 200, rate: 10000000"} {
		text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\nlog: {level: info}\ndomains: {%s: {connect: %q, tls: direct, trust: pin, pins: [%q]}}\nlimits: {%s}\notr: [{policy: never}]\n", state, domain, s.Addr(), s.Pin(), limits)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return err
		}
		t, err := startThing("otrproxy", listening, bin, "run", "--config", conf)
		if err != nil {
			return err
		}
		err = t.floods(w, limits)
		t.stop()
		if err != nil {
			return err
		}
	}
	return w.Flush()
}

// floods measures how long a message of alice's to bob takes, before and while somebody
// floods the proxy with connections, and then with stanzas.
func (t *thing) floods(w io.Writer, limits string) error {
	dial := func(who string) (*client.Client, error) {
		return client.Dial(context.Background(), t.entry(who, "flood"))
	}
	alice, err := dial("alice")
	if err != nil {
		return err
	}
	defer alice.Close()
	bob, err := dial("bob")
	if err != nil {
		return err
	}
	defer bob.Close()
	bob.Send("<presence/>")
	median := func(while func() bool) (time.Duration, error) {
		var waits []time.Duration
		for i := 0; i < 300 || while(); i++ {
			begin := time.Now()
			if err := alice.Send("<message type='chat' to='" + bob.JID + "'><body>ping</body></message>"); err != nil {
				return 0, err
			}
			if _, err := bob.Next(); err != nil {
				return 0, err
			}
			waits = append(waits, time.Since(begin))
			time.Sleep(time.Millisecond)
		}
		slices.Sort(waits)
		return waits[len(waits)/2], nil
	}
	never := func() bool { return false }
	report := func(what string, flood func() int) error {
		before, err := median(never)
		if err != nil {
			return err
		}
		var over atomic.Bool
		done := make(chan int)
		go func() {
			n := flood()
			over.Store(true)
			done <- n
		}()
		during, err := median(func() bool { return !over.Load() })
		n := <-done
		fmt.Fprintf(w, "%s\t%.0f us\t%.0f us\t%.1f\t%d %s\t\n", limits, us(before), us(during), float64(during)/float64(before), n, what)
		return err
	}
	err = report("connections", func() int {
		var mu sync.Mutex
		var open []net.Conn
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		each(10_000, 8, func(int) error {
			c, err := net.Dial("tcp", t.addr)
			if err == nil {
				c.Write([]byte("<stream"))
				mu.Lock()
				open = append(open, c)
				mu.Unlock()
			}
			return nil
		})
		return len(open)
	})
	if err != nil {
		return err
	}
	flooder, err := dial(loadUser(0))
	if err != nil {
		return err
	}
	defer flooder.Drop()
	victim, err := dial(loadUser(1))
	if err != nil {
		return err
	}
	defer victim.Drop()
	var passed atomic.Int64
	go func() {
		for {
			if _, err := victim.Next(); err != nil {
				return
			}
			passed.Add(1)
		}
	}()
	return report("stanzas passed", func() int {
		const most = 100_000
		stanza := strings.Repeat("<message type='chat' to='"+victim.JID+"'><body>flood</body></message>", 100)
		go func() {
			for range most / 100 {
				if flooder.Send(stanza) != nil {
					return
				}
			}
		}()
		for begin := time.Now(); passed.Load() < most && time.Since(begin) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		}
		return int(passed.Load())
	})
}

// entry is how clients enter: a login of the proxy's, or through the copy one with the
// server.
func (t *thing) entry(who, resource string) client.Config {
	return client.Config{Addr: t.addr, JID: who + "@" + domain, Password: "secret", Resource: resource, Entry: client.Direct, Quiet: true, Manual: true,
		TLS: &tls.Config{InsecureSkipVerify: true, ServerName: domain, CurvePreferences: []tls.CurveID{tls.X25519}}} // as the clients of today have it
}

// resident is the memory of the program, in bytes.
func (t *thing) resident() (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", t.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	return pages * os.Getpagesize(), err
}

// each does something for 0 to n-1, several at a time.
func each(n, atOnce int, f func(i int) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	var mu sync.Mutex
	var failed error
	for range atOnce {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// sleepers measures memory with and without idle sessions, each of an account of its own.
func (t *thing) sleepers() (before, after int, err error) {
	warm, err := client.Dial(context.Background(), t.entry("alice", "warm"))
	if err != nil {
		return 0, 0, err
	}
	defer warm.Close()
	if before, err = t.resident(); err != nil {
		return 0, 0, err
	}
	var mu sync.Mutex
	var all []*client.Client
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	err = each(*idle, 8, func(i int) error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		c, err := client.Dial(ctx, t.entry(loadUser(i), "idle"))
		if err != nil {
			return err
		}
		mu.Lock()
		all = append(all, c)
		mu.Unlock()
		return c.Send("<presence/>")
	})
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(time.Second) // what the last logins have begun is over then
	after, err = t.resident()
	return before, after, err
}

// logins measures how many log in in a second, with as many at once as keep the cores
// busy.
func (t *thing) logins() (rate float64, waits []time.Duration, cpu time.Duration, err error) {
	waits = make([]time.Duration, *logins)
	used, err := t.cpuTime()
	if err != nil {
		return 0, nil, 0, err
	}
	start := time.Now()
	err = each(*logins, 16, func(i int) error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		begin := time.Now()
		c, err := client.Dial(ctx, t.entry(loadUser(i%*idle), "r"+strconv.Itoa(i)))
		if err != nil {
			return err
		}
		waits[i] = time.Since(begin)
		c.Close()
		return nil
	})
	took := time.Since(start)
	now, _ := t.cpuTime()
	slices.Sort(waits)
	return float64(*logins) / took.Seconds(), waits, (now - used) / time.Duration(*logins), err
}
