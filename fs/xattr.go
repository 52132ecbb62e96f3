package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// ProvenanceAttr is the extended attribute of a version's folder that says
// what proved that the version is what the Go project released: "sumdb" and
// the name of the checksum database, or "unverified".
const ProvenanceAttr = "user.gofs.provenance"

const unverified = "unverified"

// GetXAttr answers for the folders of versions. No file has an attribute, but
// an ENOSYS for one would silence those of the folders as well. Nothing that
// a build does asks: the kernel itself would look for security.capability at
// an exec, if the mount were not nosuid. What asks is ls -l and cp -a, once
// or twice for a file.
func (r *rawFS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	r.counters.add(opGetXAttr)
	value, ok := r.now.Load().provenance[h.NodeId]
	if !ok || attr != ProvenanceAttr {
		return 0, fuse.ENOATTR
	}
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// ListXAttr makes the kernel do without the request: who wants the attribute
// knows its name.
func (r *rawFS) ListXAttr(<-chan struct{}, *fuse.InHeader, []byte) (uint32, fuse.Status) {
	r.counters.add(opListXAttr)
	return 0, fuse.ENOSYS
}
