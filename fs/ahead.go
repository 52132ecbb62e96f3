package fs

// aheadFiles is how many large files are decoded ahead of a reader that takes
// one after the other: the one it wants next, and one for another processor.
const aheadFiles = 2

// decodeNext has the first blobs of the large files behind n in its folder
// decoded in other goroutines, as many as may run at once. It is for who has
// read n from front to back, as cp and tar do, and not for who runs a program.
func (s *Server) decodeNext(n *inode) {
	g, at := n.home.Load(), n.place.Load()
	if g == nil || int(at) >= len(g.inodes) || g.inodes[at] != n { // changed just now
		return
	}
	f := &g.Folders[g.folderOf(at)]
	left := aheadFiles
	for _, next := range g.inodes[at+1 : f.First+f.N] {
		if left == 0 {
			return
		}
		if next == nil || len(next.refs) < 2 || s.hot.takes(next) {
			continue
		}
		if left--; !s.decode(next.refs[0].ID) {
			return
		}
	}
}
