// Package dnssec asks the DNS resolver of this machine for answers that are signed, and for TLSA
// records (RFC 6698). The resolver validates; its word is taken where it runs on this machine, or
// where the machine is set to trust the way to it (resolv.conf(5), trust-ad).
//
// It owns nothing, and must not know what a record is good for: that is upstream's business.
package dnssec
