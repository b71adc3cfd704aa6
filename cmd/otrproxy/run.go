package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"otrproxy/config"
	"otrproxy/confine"
	"otrproxy/proxy"
	"otrproxy/proxy/control"
	"otrproxy/proxy/control/page"
)

// Bounds of the connections to the page, and to the figures: anybody on this machine, or who
// can reach them, can make some.
const (
	maxBrowsers = 200
	maxReaders  = 50
)

// farewell is how long contacts and clients get to take the last words.
const farewell = 5 * time.Second

// signals end the proxy, or have it read its configuration again; those of Windows' service
// manager come here as well.
var signals = make(chan os.Signal, 4)

// run runs the proxy until SIGTERM or SIGINT. SIGHUP re-reads the configuration.
func run(cfg *config.Config, logTo io.Writer) error {
	confine.Cores()
	log := logger(cfg, logTo)
	paceCollector()
	debug.SetMemoryLimit(int64(cfg.Limits.Memory)) // the collector works harder before clients are refused
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	manager := fromManager(log)
	var confinement atomic.Pointer[control.Confinement]
	opt := proxy.Options{Version: version, Log: log, Listen: manager.listen, Confinement: confinement.Load}
	if opt.CommandAtStart = needsTeller(cfg); opt.CommandAtStart && len(cfg.Notify.Command) > 0 {
		told, err := startTeller(cfg, log)
		if err != nil {
			return err
		}
		defer told.close()
		opt.Notifier = told
	}
	var web *page.Page
	if cfg.Web != "" {
		opt.Link = func() string { return web.Link() }
	}
	devices, err := listenForDevices(cfg, manager.listen)
	if err != nil {
		return err
	}
	if devices != nil {
		defer devices.Close()
		opt.Welcome = devices.Addr
	}
	p, err := proxy.New(cfg, opt)
	if err != nil {
		return err
	}
	if err := p.Listen(); err != nil {
		p.Shutdown(0)
		return err
	}
	socket, err := control.Listen(filepath.Join(cfg.State, control.SocketName))
	if err != nil {
		p.Shutdown(0)
		return err
	}
	if cfg.Web != "" {
		l, err := manager.listen("tcp", cfg.Web)
		if err != nil {
			p.Shutdown(0)
			return fmt.Errorf("cannot serve the web page on %s: %w; another program may use the port: end it, or set \"web\" to another one", cfg.Web, err)
		}
		l = netutil.LimitListener(l, maxBrowsers)
		web = page.New(ctx, l.Addr().String(), p.Commands, p.Watch)
		srv := &http.Server{Handler: web, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
		go srv.Serve(l)
		defer srv.Close()
		log.Info("the web page is served; a link to it is made by: otrproxy web", "address", l.Addr().String())
	}
	if cfg.Metrics != "" {
		l, err := manager.listen("tcp", cfg.Metrics)
		if err != nil {
			p.Shutdown(0)
			return fmt.Errorf("cannot serve metrics on %s: %w", cfg.Metrics, err)
		}
		l = netutil.LimitListener(l, maxReaders)
		srv := &http.Server{Handler: p.Metrics(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
		log.Info("figures are served at /metrics, and whether all is well at /health", "address", l.Addr().String())
		go srv.Serve(l)
		defer srv.Close()
	}
	manager.unused()
	debug.FreeOSMemory() // what only the start has needed; it cannot go back once memory is locked
	confine.ReleaseProgram()
	read, _ := os.Stat(cfg.File)    // nil for no file
	held, err := confined(cfg, log) // everything that needs more is open
	if err != nil {
		p.Shutdown(0)
		return err
	}
	confinement.Store(held)
	go p.Commands().Serve(ctx, socket)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	served := make(chan struct{})
	go func() { defer close(served); p.Serve() }()
	for _, a := range p.Addrs() {
		log.Info("listening", "address", a.String())
	}
	switch {
	case devices != nil:
		defer onboard(p, devices, log)()
	case slices.ContainsFunc(cfg.Listen, func(a string) bool { return !config.Loopback(a) }):
		log.Info("other devices can connect; to let them get the local CA from a page, set \"onboarding\", such as onboarding: \"0.0.0.0:5288\"")
	}
	log.Info("ready", "version", version, "state", cfg.State)
	manager.ready()
	go manager.follow(ctx, p)
	for s := range signals {
		if s != syscall.SIGHUP {
			log.Info("stopping", "signal", s.String())
			break
		}
		if cfg.File == "" {
			log.Warn("there is no configuration file to read again")
			continue
		}
		manager.reloading()
		fresh, err := reread(cfg.File, read)
		if err == nil {
			err = p.Reload(fresh)
		}
		if err != nil {
			log.Error("the configuration was not changed", "err", err)
		}
		manager.ready()
	}
	manager.stopping()
	socket.Close()
	p.Shutdown(farewell)
	<-served
	return nil
}

func logger(cfg *config.Config, to io.Writer) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(cfg.Log.Level))
	opt := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(to, opt))
	}
	return slog.New(slog.NewTextHandler(to, opt))
}

// check prints what a configuration means.
func check(w io.Writer, cfg *config.Config) error {
	if err := proxy.Supported(cfg); err != nil {
		where := cfg.File
		if where == "" {
			where = "default configuration"
		}
		return wrongUsage{fmt.Errorf("%s: %w", where, err)}
	}
	if cfg.File == "" {
		fmt.Fprintln(w, "no configuration file: these are the defaults")
	} else {
		fmt.Fprintln(w, cfg.File, "is sound; in force would be:")
	}
	for _, a := range cfg.Listen {
		how := "TLS only (not loopback)"
		if config.Loopback(a) {
			how = "plain, STARTTLS, direct TLS, WebSocket and SOCKS5"
		}
		fmt.Fprintf(w, "listen   %s, %s\n", a, how)
	}
	if len(cfg.Names) > 0 {
		fmt.Fprintf(w, "names    %s, besides the addresses listened on\n", strings.Join(cfg.Names, ", "))
	}
	fmt.Fprintf(w, "state    %s\n", cfg.State)
	if len(cfg.Domains) == 0 {
		fmt.Fprintln(w, "domain   any, trust: tofu")
	}
	for name, d := range cfg.Domains {
		where := d.Connect
		switch {
		case where != "":
		case d.Via != "":
			where = "its own name"
		default:
			where = "as DNS says"
		}
		if d.Via != "" {
			where += " through " + d.Via + " alone"
		}
		fmt.Fprintf(w, "domain   %s: %s, tls: %s, trust: %s, %d pins\n", name, where, d.TLS, d.Trust, len(d.Pins))
	}
	if len(cfg.Admins) > 0 {
		fmt.Fprintf(w, "admins   %s\n", strings.Join(cfg.Admins, ", "))
	}
	if len(cfg.Origins) > 0 {
		fmt.Fprintf(w, "origins  %s, besides pages of this machine\n", strings.Join(cfg.Origins, ", "))
	}
	for _, r := range cfg.OTR {
		beside := ""
		if r.Drop {
			beside = ", clear text dropped"
		}
		if r.Reason != "" {
			beside += fmt.Sprintf(", because: %q", r.Reason)
		}
		fmt.Fprintf(w, "otr      %s -> %s: %s, allow %v%s (line %d)\n", r.Account, r.Contact, r.Policy, r.Allow, beside, r.Line)
	}
	r := cfg.RuleFor("", "")
	if len(cfg.OTR) == 0 || r.Line == 0 {
		fmt.Fprintf(w, "otr      everybody else: require, allow %v\n", (&config.Config{}).RuleFor("", "").Allow)
	}
	fmt.Fprintf(w, "hold     %d messages, %d bytes, for %s, for %s while a contact is offline\n", cfg.Hold.Messages, cfg.Hold.Bytes, cfg.Hold.For, cfg.Hold.Offline)
	for _, a := range cfg.Access {
		from, what := "anywhere", "may use this proxy"
		if len(a.From) > 0 {
			from = strings.Trim(fmt.Sprint(a.From), "[]")
		}
		if a.Refuse != "" {
			what = fmt.Sprintf("may not: %q", a.Refuse)
		}
		fmt.Fprintf(w, "access   %s from %s %s (line %d)\n", a.Account, from, what, a.Line)
	}
	if len(cfg.Access) > 0 {
		fmt.Fprintln(w, "access   nobody else")
	}
	l := cfg.Limits
	fmt.Fprintf(w, "limits   %d sessions, %d of an account; %d connections from another machine, %d before the login, %s for it\n", l.Sessions, l.PerAccount, l.PerAddress, l.Pending, l.Login)
	fmt.Fprintf(w, "limits   %d stanzas a second of a client, %d bytes each; %d bytes of memory\n", l.Rate, l.Stanza, l.Memory)
	if cfg.Web != "" {
		fmt.Fprintf(w, "web      http://%s/ (otrproxy web makes a link)\n", cfg.Web)
	}
	if cfg.Onboarding != "" {
		fmt.Fprintf(w, "devices  http://%s/ (otrproxy ca show prints what to compare)\n", cfg.Onboarding)
	}
	if len(cfg.Notify.Command) > 0 {
		fmt.Fprintf(w, "notify   %q on %s\n", cfg.Notify.Command, strings.Join(cfg.Notify.Events, ", "))
	}
	fmt.Fprintf(w, "confine  %s; here: %s\n", cfg.Confine, confine.Available())
	if cfg.Metrics != "" {
		fmt.Fprintf(w, "metrics  http://%s/metrics\n", cfg.Metrics)
	}
	return nil
}

var errDemo = errors.New("the demo did not go as it should")
