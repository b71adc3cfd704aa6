// Package hostname has names and addresses of hosts, as DNS, TLS and people write them. Pure.
package hostname
