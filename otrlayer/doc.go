// Package otrlayer is OTR for one account: the conversations with its contacts, the messages
// that wait for one, and the one decision whether and how a text may leave.
//
//	account.go       an account, and the clients that are attached to it
//	conversation.go  all that goes on with one contact
//	send.go          the way of a text out; decide is where it is said what may leave
//	receive.go       the way of a text in
//
// Beside the way: returned.go (what comes back), unreadable.go and restart.go (what could not be
// read, here or there), compare.go (secrets), trust.go (decisions about keys), devices.go and
// copies.go (the account's other clients), presence.go (who is there), deadlines.go, table.go,
// counts.go and texts.go (what is kept, and for how long), guest.go (who is not known to be the
// account's person).
//
// Owned here: the account's state, under its one lock. The lock is never held across I/O to a
// peer; the order of ciphertext on the wire is the order of encryption.
//
// It must not know XML, the network, configuration files, nor the words that people read.
package otrlayer
