package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
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
		var closeWeb func() error
		if web, closeWeb, err = servePage(ctx, p, cfg, manager, log); err != nil {
			p.Shutdown(0)
			return err
		}
		defer closeWeb()
	}
	if cfg.Metrics != "" {
		closeFigures, err := serveFigures(p, cfg, manager, log)
		if err != nil {
			p.Shutdown(0)
			return err
		}
		defer closeFigures()
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
	heed(p, cfg, read, manager, log)
	manager.stopping()
	socket.Close()
	p.Shutdown(farewell)
	<-served
	return nil
}

// heed does what signals ask for, until one ends the proxy.
func heed(p *proxy.Proxy, cfg *config.Config, read os.FileInfo, m *manager, log *slog.Logger) {
	for s := range signals {
		if s != syscall.SIGHUP {
			log.Info("stopping", "signal", s.String())
			return
		}
		if cfg.File == "" {
			log.Warn("there is no configuration file to read again")
			continue
		}
		m.reloading()
		fresh, err := reread(cfg.File, read)
		if err == nil {
			err = p.Reload(fresh)
		}
		if err != nil {
			log.Error("the configuration was not changed", "err", err)
		}
		m.ready()
	}
}

// servePage serves the web page until it is closed.
func servePage(ctx context.Context, p *proxy.Proxy, cfg *config.Config, m *manager, log *slog.Logger) (web *page.Page, stop func() error, err error) {
	l, err := m.listen("tcp", cfg.Web)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot serve the web page on %s: %w; another program may use the port: end it, or set \"web\" to another one", cfg.Web, err)
	}
	l = netutil.LimitListener(l, maxBrowsers)
	web = page.New(ctx, l.Addr().String(), p.Commands, p.Watch)
	srv := &http.Server{Handler: web, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	go srv.Serve(l)
	log.Info("the web page is served; a link to it is made by: otrproxy web", "address", l.Addr().String())
	return web, srv.Close, nil
}

// serveFigures serves the metrics until they are closed.
func serveFigures(p *proxy.Proxy, cfg *config.Config, m *manager, log *slog.Logger) (stop func() error, err error) {
	l, err := m.listen("tcp", cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("cannot serve metrics on %s: %w", cfg.Metrics, err)
	}
	l = netutil.LimitListener(l, maxReaders)
	srv := &http.Server{Handler: p.Metrics(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	log.Info("figures are served at /metrics, and whether all is well at /health", "address", l.Addr().String())
	go srv.Serve(l)
	return srv.Close, nil
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
