//go:build linux

// Command bench measures what the proxy costs a passed stanza, side by side with a
// plain TLS-to-TLS copy in Go (the floor) and with haproxy, in one run; with the word
// load, what many sessions, logins and floods cost (load.go).
//
// A client sends itself a message of about 300 bytes through the thing measured
// and waits for it, again and again; the things take turns, so that all of them
// meet the same noise. CPU is that of the middle process alone.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"otrproxy/stanza"
	"otrproxy/test/client"
	"otrproxy/test/server"
)

const (
	domain = "bench.example"
	jid    = "alice@" + domain
)

var (
	rounds = flag.Int("rounds", 30, "turns each thing gets")
	pings  = flag.Int("pings", 1000, "messages a turn")
	beside = flag.String("beside", "", "another otrproxy, such as an older one, to measure beside this one")
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "floor" {
		fmt.Fprintln(os.Stderr, floor(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	flag.Parse()
	measure := bench
	if flag.Arg(0) == "load" {
		measure = load
	}
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// floor copies bytes between TLS connections, with all that Go has to offer and
// nothing else. It prints its address.
func floor(pemFile, upstream string) error {
	cert, err := tls.LoadX509KeyPair(pemFile, pemFile)
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			u, err := tls.Dial("tcp", upstream, &tls.Config{InsecureSkipVerify: true, ServerName: domain})
			if err != nil {
				return
			}
			defer u.Close()
			go io.Copy(c, u)
			io.Copy(u, c)
		}()
	}
}

// A thing is what stands between the client and the server.
type thing struct {
	name string
	addr string
	cmd  *exec.Cmd // nil for direct
	c    *client.Client
	rtt  []time.Duration
	cpu  time.Duration
	n    int
}

func bench() error {
	dir, err := os.MkdirTemp("", "otrproxy-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := server.Start(server.Config{Domain: domain, Users: map[string]string{"alice": "alice"}, Mechanisms: []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"}, Forget: true})
	if err != nil {
		return err
	}
	defer s.Close()
	pemFile := filepath.Join(dir, "cert.pem")
	if err := writePEM(pemFile); err != nil {
		return err
	}
	things := []*thing{{name: "direct", addr: s.Addr()}}
	start := func(name string, ready func(line string) (addr string), argv ...string) error {
		t, err := startThing(name, ready, argv...)
		if err == nil {
			things = append(things, t)
		}
		return err
	}
	defer func() {
		for _, t := range things {
			t.stop()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := start("Go TLS copy", strings.TrimSpace, self, "floor", pemFile, s.Addr()); err != nil {
		return err
	}
	if _, err := exec.LookPath("haproxy"); err == nil {
		t, err := startHAProxy(dir, pemFile, s.Addr())
		if err != nil {
			return err
		}
		things = append(things, t)
	} else {
		fmt.Println("haproxy is not installed and left out")
	}
	bin, err := build(dir)
	if err != nil {
		return err
	}
	for _, name := range []string{"otrproxy", "otrproxy beside"} {
		if name != "otrproxy" {
			bin = *beside
		}
		if bin == "" {
			continue
		}
		at := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains: {%s: {connect: %q, tls: direct, trust: pin, pins: [%q]}}\notr: [{policy: never}]\nlimits: {rate: 100000}\n", at+".state", domain, s.Addr(), s.Pin())
		if err := os.WriteFile(at+".yaml", []byte(text), 0o600); err != nil {
			return err
		}
		if err := start(name, listening, bin, "run", "--config", at+".yaml"); err != nil {
			return err
		}
	}
	for _, t := range things {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		res := strings.ReplaceAll(strings.ToLower(t.name), " ", "")
		t.c, err = client.Dial(ctx, client.Config{Addr: t.addr, JID: jid, Password: "alice", Resource: res, Entry: client.Direct, Manual: true})
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		defer t.c.Close()
		if err := t.c.Send("<presence/>"); err != nil {
			return err
		}
		if err := t.turn(300, false); err != nil { // warm up
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	order := slices.Clone(things)
	for range *rounds {
		slices.Reverse(order) // whoever comes after another does not gain by it
		for _, t := range order {
			if err := t.turn(*pings, true); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	return report(things)
}

// build builds the program into a directory.
func build(dir string) (bin string, err error) {
	bin = filepath.Join(dir, "otrproxy")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", bin, "otrproxy/cmd/otrproxy").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
}

// listening is the address in the line by which otrproxy says where it listens.
func listening(line string) string {
	_, a, _ := strings.Cut(strings.TrimSpace(line), "msg=listening address=")
	return a
}

// startThing starts a program and waits for the line that says where it is.
func startThing(name string, ready func(line string) (addr string), argv ...string) (*thing, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.Close()
	t := &thing{name: name, cmd: cmd}
	var seen []byte
	b := make([]byte, 4096)
	for t.addr == "" {
		n, err := r.Read(b)
		if err != nil {
			t.stop()
			return nil, fmt.Errorf("%s: %w: %s", name, err, seen)
		}
		seen = append(seen, b[:n]...)
		for line := range bytes.Lines(seen) {
			if a := ready(string(line)); a != "" {
				t.addr = a
			}
		}
	}
	go io.Copy(io.Discard, r)
	return t, nil
}

// stop ends the program.
func (t *thing) stop() {
	if t.cmd != nil {
		t.cmd.Process.Kill()
		t.cmd.Wait()
	}
}

// turn sends messages to oneself, one at a time.
func (t *thing) turn(n int, count bool) error {
	msg := fmt.Sprintf("<message to='%s' type='chat' id='c0c5a7d1-5a0b-4c6e-8c6f-2f6b2f0a9f10'><body>%s</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
		t.c.JID, strings.Repeat("x", 140))
	before, err := t.cpuTime()
	if err != nil {
		return err
	}
	for range n {
		start := time.Now()
		if err := t.c.Send(msg); err != nil {
			return err
		}
		for {
			st, err := t.c.Next()
			if err != nil {
				return err
			}
			if st.Is(stanza.NSClient, "message") {
				break
			}
		}
		if count {
			t.rtt = append(t.rtt, time.Since(start))
		}
	}
	after, err := t.cpuTime()
	if count {
		t.cpu += after - before
		t.n += n
	}
	return err
}

// cpuTime is what the middle process has used so far.
func (t *thing) cpuTime() (time.Duration, error) {
	if t.cmd == nil {
		return 0, nil
	}
	var ts unix.Timespec
	clock := int32(^t.cmd.Process.Pid)<<3 | 2 // CPUCLOCK_SCHED of that process, clock_getcpuclockid(3)
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

func startHAProxy(dir, pemFile, upstream string) (*thing, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	conf := filepath.Join(dir, "haproxy.cfg")
	text := fmt.Sprintf("global\n  nbthread 2\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5m\n  timeout server 5m\nfrontend f\n  bind %s ssl crt %s\n  default_backend b\nbackend b\n  server s %s ssl verify none\n", addr, pemFile, upstream)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("haproxy", "-db", "-q", "-f", conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for range 500 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return &thing{name: "haproxy", addr: addr, cmd: cmd}, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	cmd.Process.Kill()
	return nil, errors.New("haproxy does not listen")
}

func writePEM(file string) error {
	c, err := server.SelfSigned(domain)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	return os.WriteFile(file, b, 0o600)
}

func report(things []*thing) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\tmedian RTT\tp99\tadded median\tx floor\tCPU per stanza\tx floor\t\n")
	median := func(t *thing, q float64) time.Duration {
		slices.Sort(t.rtt)
		return t.rtt[int(float64(len(t.rtt)-1)*q)]
	}
	direct, base := things[0], things[1]
	baseAdded := median(base, 0.5) - median(direct, 0.5)
	baseCPU := float64(base.cpu) / float64(2*base.n)
	for _, t := range things {
		added := median(t, 0.5) - median(direct, 0.5)
		cpu := float64(t.cpu) / float64(2*t.n)
		if t == direct {
			fmt.Fprintf(w, "%s\t%.1f us\t%.1f us\t\t\t\t\t\n", t.name, us(median(t, 0.5)), us(median(t, 0.99)))
			continue
		}
		fmt.Fprintf(w, "%s\t%.1f us\t%.1f us\t%.1f us\t%.2f\t%.2f us\t%.2f\t\n", t.name, us(median(t, 0.5)), us(median(t, 0.99)), us(added), float64(added)/float64(baseAdded), cpu/1e3, cpu/baseCPU)
	}
	fmt.Fprintf(w, "\n%d messages through each; two stanzas pass for each message\n", direct.n)
	return w.Flush()
}

func us(d time.Duration) float64 { return float64(d) / 1e3 }
