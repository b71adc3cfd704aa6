package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
)

const demoDomain = "demo.example"

var errDemo = errors.New("the demo did not go as it should")

// demo is the whole thing on this machine alone: a server in memory, two people,
// two proxies, with TLS and a pinned certificate.
func demo(w io.Writer, stay bool) error {
	dir, err := os.MkdirTemp("", "otrproxy-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	srv, err := server.Start(server.Config{Domain: demoDomain, Users: map[string]string{"alice": "alice", "bob": "bob"}})
	if err != nil {
		return err
	}
	defer srv.Close()
	fmt.Fprintf(w, "server: %s at %s, in memory; it presents %s\n", demoDomain, srv.Addr(), srv.Pin())

	people := map[string]*proxy.Proxy{}
	for _, who := range []string{"alice", "bob"} {
		p, err := demoProxy(filepath.Join(dir, who), srv)
		if err != nil {
			return err
		}
		defer p.Shutdown(time.Second)
		people[who] = p
		fmt.Fprintf(w, "proxy: %s's listens on %s, rule: require, certificate: pinned\n", who, p.Addrs()[0])
	}
	if stay {
		fmt.Fprintf(w, "point a client at one of the proxies: account alice@%s, password alice (or bob, bob), server and port as above\n", demoDomain)
		fmt.Fprintln(w, "demo: up, until Ctrl-C")
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
		<-stop
		return nil
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	clients := map[string]*client.Client{}
	for who, p := range people {
		c, err := client.Dial(ctx, client.Config{Addr: p.Addrs()[0].String(), JID: who + "@" + demoDomain, Password: who, Resource: "demo", Entry: client.STARTTLS})
		if err != nil {
			return fmt.Errorf("%w: %s could not log in: %w", errDemo, who, err)
		}
		defer c.Close()
		clients[who] = c
	}
	for i, line := range []struct{ from, to, text string }{
		{"alice", "bob", `hello <b> & "quotes" <3 ü 👍`},
		{"bob", "alice", "hi alice - and nobody else"},
		{"alice", "bob", "the key is under the third flower pot"},
	} {
		before := len(srv.Received())
		fmt.Fprintf(w, "%s typed: %s\n", line.from, line.text)
		clients[line.from].Say(line.to+"@"+demoDomain, fmt.Sprint("demo-", i), line.text)
		got, err := clients[line.to].Text(line.from + "@" + demoDomain)
		if err != nil || got != line.text {
			return fmt.Errorf("%w: %s read %q (%v)", errDemo, line.to, got, err)
		}
		seen := srv.Received()
		for _, body := range bodies(seen[before:]) {
			fmt.Fprintf(w, "server saw: %s\n", body)
		}
		fmt.Fprintf(w, "%s read: %s\n", line.to, got)
		if bytes.Contains(seen, []byte(line.text)) || bytes.Contains(seen, []byte(strings.Fields(line.text)[0]+" ")) {
			return fmt.Errorf("%w: the server saw what %s typed", errDemo, line.from)
		}
	}
	if notice, err := clients["alice"].Notice("Private conversation"); err == nil {
		fmt.Fprintf(w, "alice was told: %s\n", notice)
	}
	fmt.Fprintln(w, "demo: ok")
	return nil
}

// bodies finds the message bodies in what the server received, shortened.
func bodies(b []byte) (out []string) {
	for {
		_, rest, ok := bytes.Cut(b, []byte("<body>"))
		if !ok {
			return out
		}
		body, after, ok := bytes.Cut(rest, []byte("</body>"))
		if !ok {
			return out
		}
		b = after
		s := string(body)
		if len(s) > 76 {
			s = s[:60] + fmt.Sprintf("... (%d characters)", len(s))
		}
		out = append(out, s)
	}
}

func demoProxy(dir string, srv *server.Server) (*proxy.Proxy, error) {
	text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q, trust: pin, pins: [%q]}\n", dir, demoDomain, srv.Addr(), srv.Pin())
	cfg, err := config.Parse("demo", []byte(text))
	if err != nil {
		return nil, err
	}
	p, err := proxy.New(cfg, proxy.Options{Version: version})
	if err != nil {
		return nil, err
	}
	if err := p.Listen(); err != nil {
		return nil, err
	}
	go p.Serve()
	return p, nil
}
