// Package filter says what of a stanza may pass, in both directions.
//
// It is written as tables of what is allowed; what stands in none of them does not pass.
// A Table lists elements by namespace and local name, a Form says what one of them may
// hold. The way out (out_*.go) guards what a person wrote: nothing of it leaves in clear
// where a rule demands encryption. The way in (in_*.go) guards whose words a person reads:
// what a client gets is written anew from the tables, or holds just what they list and no
// prefixes, so that no reader, however lax, finds in it what was not checked. Clients look
// elements up by their local name alone, take the first one, and look at any depth.
//
// Everything here is a pure function of a stanza, a rule and a few facts. It knows no
// socket, no account and no conversation; what a text says, and whether it imitates the
// proxy's voice, is for the caller to see to (Voice).
package filter

import "otrproxy/stanza"

// Namespaces of what is told apart here.
const (
	NSCaps       = "http://jabber.org/protocol/caps"
	NSCarbons    = "urn:xmpp:carbons:2"
	NSChatStates = "http://jabber.org/protocol/chatstates"
	NSConference = "jabber:x:conference"
	NSData       = "jabber:x:data"
	NSDelay      = "urn:xmpp:delay"
	NSDelayOld   = "jabber:x:delay"
	NSDiscoInfo  = "http://jabber.org/protocol/disco#info"
	NSDiscoItems = "http://jabber.org/protocol/disco#items"
	NSEME        = "urn:xmpp:eme:0"
	NSEvent      = "http://jabber.org/protocol/pubsub#event"
	NSForward    = "urn:xmpp:forward:0"
	NSHints      = "urn:xmpp:hints"
	NSIBB        = "http://jabber.org/protocol/ibb"
	NSMarkers    = "urn:xmpp:chat-markers:0"
	NSMUC        = "http://jabber.org/protocol/muc"
	NSMUCUser    = NSMUC + "#user"
	NSNick       = "http://jabber.org/protocol/nick"
	NSOOB        = "jabber:x:oob"
	NSReactions  = "urn:xmpp:reactions:0"
	NSOTR        = "urn:xmpp:otr:0"
	NSPubSub     = "http://jabber.org/protocol/pubsub"
	NSReceipts   = "urn:xmpp:receipts"
	NSRoster     = "jabber:iq:roster"
	NSRSM        = "http://jabber.org/protocol/rsm"
	NSStanzaID   = "urn:xmpp:sid:0"
	NSXHTML      = "http://jabber.org/protocol/xhtml-im"

	nsClient = stanza.NSClient
	nsXML    = "http://www.w3.org/XML/1998/namespace"
	nsCalls  = "urn:xmpp:jingle-message:0"
)
