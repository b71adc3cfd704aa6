// Package accounts has the accounts that are served: each is opened once, however many of its
// clients come, and has so many places for their sessions (limits.per_account). An account of
// which nothing has come leaves nothing behind: neither a directory nor a place among those that
// are kept (limits.accounts).
//
// Owned here: which accounts are open, who has a place, and the key files while they change.
// What an account does with messages is otrlayer's; who logs in to it is known to sasl.
//
// It must not know sessions, servers, or how somebody has logged in.
package accounts
