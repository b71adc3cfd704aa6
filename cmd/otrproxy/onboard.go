package main

import (
	"fmt"
	"log/slog"
	"net"
	"strings"

	"otrproxy/config"
	"otrproxy/proxy"
	"otrproxy/proxy/control/welcome"
)

// onboard serves the page for the household's devices, until stop is called.
func onboard(p *proxy.Proxy, l net.Listener, log *slog.Logger) (stop func()) {
	page := welcome.New(welcome.Box{CA: p.CA(), Names: p.Names, Listening: p.Addrs, Certificate: p.Certificate})
	srv := page.Server()
	srv.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) // anybody could fill it
	go srv.Serve(page.Listen(l))
	log.Info("devices come to trust this machine at the page; what to compare is shown by: otrproxy ca show", "address", l.Addr().String(), "pages", strings.Join(p.Pages(), " "))
	return func() { srv.Close() }
}

// listenForDevices opens the address of that page, nil for none.
func listenForDevices(cfg *config.Config, listen func(network, addr string) (net.Listener, error)) (net.Listener, error) {
	if cfg.Onboarding == "" {
		return nil, nil
	}
	l, err := listen("tcp", cfg.Onboarding)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the page for devices on %s: %w; another program may use the port: end it, or set \"onboarding\" to another one", cfg.Onboarding, err)
	}
	return l, nil
}
