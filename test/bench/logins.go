//go:build linux

package main

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/demo/client"
	"otrproxy/stanza"
)

// What logins cost: the first of an account, which the proxy has never seen, and later ones.

const (
	mechanism  = "SCRAM-SHA-256-PLUS" // that all use upstream
	atOnce     = 16                   // logins, which keeps the cores busy
	quietAfter = 300 * time.Millisecond
)

// loginFloor is the least that any proxy does for a login, as a process: a TLS handshake
// with the client, whose password it takes, and a TLS handshake and a SCRAM login upstream.
// It binds the resource there and answers the client's request with it; then it only waits
// for the client to go. It is Go as well, and uses the tests' client upstream.
func loginFloor(args []string) error {
	return between(args, func(c net.Conn, cert tls.Certificate, upstream string) {
		defer c.Close()
		serveLogin(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, CurvePreferences: curves}), upstream)
	})
}

func serveLogin(c net.Conn, upstream string) error {
	header := func(features string) (*stanza.Scanner, error) {
		scan := stanza.NewScanner(c, stanza.Limits{Bytes: 64 << 10})
		if _, err := scan.Next(); err != nil {
			return nil, err
		}
		b := stanza.Header{From: domain, ID: "floor"}.AppendTo(nil)
		_, err := c.Write(append(b, "<stream:features>"+features+"</stream:features>"...))
		return scan, err
	}
	scan, err := header("<mechanisms xmlns='" + stanza.NSSASL + "'><mechanism>PLAIN</mechanism></mechanisms>")
	if err != nil {
		return err
	}
	st, err := scan.Next()
	if err != nil {
		return err
	}
	plain, err := base64.StdEncoding.DecodeString(st.Root().Text())
	if err != nil {
		return err
	}
	said := strings.Split(string(plain), "\x00")
	if len(said) != 3 {
		return errors.New("that is not PLAIN")
	}
	u, err := client.Dial(background, client.Config{Addr: upstream, JID: said[1] + "@" + domain, Password: said[2], Resource: "r", Entry: client.Direct, Manual: true,
		Mechanism: mechanism, Binding: "tls-exporter", TLS: &tls.Config{InsecureSkipVerify: true, ServerName: domain, CurvePreferences: curves}})
	if err != nil {
		return err
	}
	defer u.Drop()
	if _, err := c.Write([]byte("<success xmlns='" + stanza.NSSASL + "'/>")); err != nil {
		return err
	}
	if scan, err = header("<bind xmlns='" + stanza.NSBind + "'/>"); err != nil {
		return err
	}
	if st, err = scan.Next(); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "<iq type='result' id='%s'><bind xmlns='%s'><jid>%s</jid></bind></iq>", st.Root().Attr("id"), stanza.NSBind, u.JID); err != nil {
		return err
	}
	for {
		if st, err = scan.Next(); err != nil || st.Kind == stanza.KindClose {
			return err
		}
	}
}

// loggedIn is what one thing took of logins.
type loggedIn struct {
	rate  float64 // a second
	waits []time.Duration
	cpu   float64 // milliseconds each, with what goes on behind it
}

// each does something for 0 to n-1, several at a time, until one fails.
func each(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, atOnce)
	for w := range atOnce {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[w] = f(i); errs[w] != nil {
					next.Store(int64(n)) // the others stop as well
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// logIn has users log in once each, and waits until the thing is silent again: keys are
// made behind the login.
func (t *thing) logIn(users []string) (l loggedIn, err error) {
	before, err := t.cpu()
	if err != nil {
		return l, err
	}
	l.waits = make([]time.Duration, len(users))
	begin := time.Now()
	err = each(len(users), func(i int) error {
		start := time.Now()
		c, _, err := t.dial(users[i], "r", nil)
		if err != nil {
			return err
		}
		l.waits[i] = time.Since(start)
		err = c.Send("<presence/>") // as whoever comes to stay
		c.Close()
		return err
	})
	if err != nil {
		return l, err
	}
	l.rate = float64(len(users)) / time.Since(begin).Seconds()
	after, err := t.silent()
	l.cpu = float64((after - before).Microseconds()) / 1e3 / float64(len(users))
	slices.Sort(l.waits)
	return l, err
}

// silent waits until the process has used next to no processor time for a while, and returns
// what it had used until then.
func (t *thing) silent() (time.Duration, error) {
	used, err := t.cpu()
	for deadline := time.Now().Add(2 * time.Minute); err == nil; {
		time.Sleep(quietAfter)
		var now time.Duration
		if now, err = t.cpu(); now-used < quietAfter/50 {
			return now, err
		}
		if used = now; time.Now().After(deadline) {
			return 0, fmt.Errorf("%s does not come to rest", t.name)
		}
	}
	return 0, err
}

func userNames(n int) (names []string, people map[string]string) {
	people = map[string]string{"alice": password, "bob": password}
	for i := range n {
		names = append(names, "user"+strconv.Itoa(i))
		people[names[i]] = password
	}
	return names, people
}

func (b *bench) logins() error {
	floor := kind{name: "SCRAM floor", start: (*bench).startLoginFloor}
	rounds, n := b.turns(4, 1), b.some(100, 30)
	names, people := userNames(rounds * n)
	var things []*thing
	defer func() {
		for _, t := range things {
			t.stop()
		}
	}()
	for _, k := range []kind{floor, never, require} {
		t, err := b.begin(k, people)
		if err != nil {
			return err
		}
		things = append(things, t)
		// What is made only once is made: programs and server are warm.
		if _, err := t.logIn([]string{"alice", "bob", "alice"}); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	const again = 3 // times that each account comes back in a round
	first, later := make([][]loggedIn, len(things)), make([][]loggedIn, len(things))
	for r := range rounds {
		users := names[r*n : (r+1)*n]
		for i, t := range things {
			f, err := t.logIn(users)
			if err != nil {
				return fmt.Errorf("%s, first logins: %w", t.name, err)
			}
			l, err := t.logIn(slices.Repeat(users, again))
			if err != nil {
				return fmt.Errorf("%s, later logins: %w", t.name, err)
			}
			first[i], later[i] = append(first[i], f), append(later[i], l)
		}
	}
	tab := newTable(fmt.Sprintf("Logins: %d rounds of %d first and %d later ones, %d at once; upstream %s; CPU with what goes on behind a login, such as making a key", rounds, n, again*n, atOnce, mechanism),
		"a second", "p50", "p99", "CPU each", "x floor")
	for _, kind := range []struct {
		name string
		took [][]loggedIn
	}{{"first", first}, {"later", later}} {
		for i, t := range things {
			var waits []time.Duration
			for _, l := range kind.took[i] {
				waits = append(waits, l.waits...)
			}
			slices.Sort(waits)
			tab.row(kind.name+", "+t.name, show("%.0f", rates(kind.took[i])), fmt.Sprintf("%.1f ms", us(waits[len(waits)/2])/1e3), fmt.Sprintf("%.1f ms", us(waits[len(waits)*99/100])/1e3),
				show("%.2f ms", cpus(kind.took[i])), showRatio(ratios(cpus(kind.took[i]), cpus(kind.took[0]))))
		}
	}
	return tab.print()
}

func rates(list []loggedIn) (out []float64) {
	for _, l := range list {
		out = append(out, l.rate)
	}
	return out
}

func cpus(list []loggedIn) (out []float64) {
	for _, l := range list {
		out = append(out, l.cpu)
	}
	return out
}
