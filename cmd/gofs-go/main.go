// Gofs-go is the go command of a shim folder and of a mount's bin: it runs go,
// or gofmt when it is called that, of the release that the working directory
// asks for. See gofs shim install.
package main

import (
	"cmp"
	"os"

	"gofs/resolve/launch"
)

func main() {
	os.Exit(launch.Main(cmp.Or(launch.Tool(os.Args[0]), "go"), os.Args))
}
