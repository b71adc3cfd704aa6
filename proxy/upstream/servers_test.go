package upstream

import (
	"otrproxy/config"
	"otrproxy/proxy/journal"
)

// reaching are servers that are reached in some way, and that nothing is known of.
func reaching(cfg *config.Config, by Network) *Servers {
	return New(func() *config.Config { return cfg }, journal.New(nil, func() bool { return false }), &Pins{pins: map[string][]StoredPin{}}, by)
}
