// Package otrlayer is OTR for one account: the conversations with its contacts, the messages
// that wait for one, and the one decision whether and how a text may leave.
//
//	account.go       an account, and how it is opened and closed
//	conversation.go  all that goes on with one contact
//	outlet.go        the clients that are attached to it
//
// The way of a text out:
//
//	send.go          its steps; message.go is what is handed over, and what becomes of it
//	decide.go        where it is said what may leave
//	hold.go          what waits until it may
//	emit.go          what leaves of itself: the exchange of keys, and the query for one
//
// The way of a text in:
//
//	receive.go       its steps
//	secured.go       what the exchange of keys has led to, and how it ends
//	complaint.go     what the contact's program could not read
//	notice.go        what people are told of it, as what and with which arguments
//
// Beside the way: returned.go (what comes back), unreadable.go and restart.go (what could not be
// read, here or there), start.go (what a person asks for), compare.go (secrets), trust.go
// (decisions about keys), ownkey.go (the account's own), devices.go and copies.go (the account's
// other clients), presence.go (who is there), described.go (how it stands), deadlines.go, table.go,
// counts.go and texts.go (what is kept, and for how long), guest.go (who is not known to be the
// account's person).
//
// Owned here: the account's state, under its one lock. The lock is never held across I/O to a
// peer; the order of ciphertext on the wire is the order of encryption.
//
// It must not know XML, the network, configuration files, nor the words that people read.
package otrlayer
