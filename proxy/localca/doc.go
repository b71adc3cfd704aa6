// Package localca is this machine as clients reach it: its names and addresses, and the local CA
// that signs what they are shown. Where domains are listed the CA can sign for these only, and for
// what means something within one household.
//
// Owned here: the CA's key and certificates, and which addresses this machine has.
//
// It must not know clients or servers; it is asked for a certificate.
package localca
