// Package service is the proxy itself as a contact, which only its own people see. Its address is
// found among the server's services (XEP-0030), can be put on the list of contacts, reads
// commands in a chat and offers them in menus (XEP-0050). Nothing to or from it passes to the
// server, which never learns of it.
//
//	contact.go    what a client sends to it, and how it stands on the list of contacts
//	discovery.go  what a client finds: the contact among the services, its commands
//	adhoc.go      commands in a client's menus
//	about.go      requests to the server that are about the contact
//	memory.go     what an account remembers of it
//
// Owned here: which pushes wait for an answer, and the file of what an account remembers. Whose
// client it is, what that may do and what it is told when it comes are relay's; what the commands
// do is control/commands'.
package service
