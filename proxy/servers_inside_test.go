package proxy

import "otrproxy/config"

// reaching are servers that are reached in some way, and that nothing is known of.
func reaching(cfg *config.Config, by Network) *servers {
	return newServers(func() *config.Config { return cfg }, newJournal(nil, func() bool { return false }), &pinStore{pins: map[string][]StoredPin{}}, by)
}
