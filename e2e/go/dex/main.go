// Dex as an OpenID provider for tests, in memory. Its own command cannot be built outside of its repository, because
// the module proxy lacks the version of its gRPC API that it needs.
//
//	dex LISTEN LIFETIME CLIENTS
//
// LISTEN is the address, LIFETIME that of ID and access tokens, CLIENTS a JSON list. The issuer is http://LISTEN/dex.
// Its user anna@shop.example has the password "annas password".
package main

import (
	"context"
	"encoding/json"
	"log"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/server/connectors"
	"github.com/dexidp/dex/server/session"
	"github.com/dexidp/dex/server/signer"
	"github.com/dexidp/dex/server/tokens"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/dexidp/dex/web"
	"golang.org/x/crypto/bcrypt"
)

func main() {
	listen := os.Args[1]
	lifetime, err := time.ParseDuration(os.Args[2])
	check(err)
	var clients []storage.Client
	check(json.Unmarshal([]byte(os.Args[3]), &clients))
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	hash, err := bcrypt.GenerateFromPassword([]byte("annas password"), 10)
	check(err)
	users := []storage.Password{{Email: "anna@shop.example", Hash: hash, Username: "anna", UserID: "user-1"}}
	store := storage.WithStaticClients(memory.New(logger), clients)
	store = storage.WithStaticPasswords(store, users, logger)
	local := storage.Connector{ID: connectors.LocalConnector, Name: "Email", Type: connectors.LocalConnector}
	store = storage.WithStaticConnectors(store, []storage.Connector{local})
	ctx := context.Background()
	keys := signer.LocalConfig{KeysRotationPeriod: "6h"}
	signs, err := keys.Open(ctx, store, lifetime, time.Now, logger)
	check(err)
	signs.Start(ctx)
	dex, err := server.NewServer(ctx, server.Config{
		Issuer:           "http://" + listen + "/dex",
		Storage:          store,
		IDTokensValidFor: lifetime,
		// A refresh token is used once: every refresh replaces it, and no old one is accepted.
		RefreshTokenPolicy: tokens.NewRefreshStrategy(true, time.Hour, time.Hour, 0, time.Now),
		Web:                server.WebConfig{WebFS: web.FS()},
		Logger:             logger,
		Signer:             signs,
		SessionConfig: &session.Config{
			CookieName:        "dex_session",
			AbsoluteLifetime:  time.Hour,
			ValidIfNotUsedFor: time.Hour,
		},
	})
	check(err)
	log.Fatal(http.ListenAndServe(listen, dex))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
