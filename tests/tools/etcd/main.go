// Command etcd is the etcd server, built from its module: upstream releases are not in a module proxy.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
