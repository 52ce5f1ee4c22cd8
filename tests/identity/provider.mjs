// An OpenID provider for the suite `identity`. Users log in with any password, in the forms of the library.
//
//   node provider.mjs FOLDER OPTIONS
//
// FOLDER has the installed packages. OPTIONS is JSON:
//   port            of the issuer, on 127.0.0.1; 0 for a free one, which is printed
//   redirectUri, postLogoutUri, backchannelUri   of the client `shop`
//   accessSeconds   until access tokens expire
//   clockSeconds    how far the clock of the provider is ahead
//   key             id of the signing key, which is another one for each id and process

import { generateKeyPairSync } from "node:crypto";
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const [folder, text] = process.argv.slice(2);
const options = JSON.parse(text);

if (options.clockSeconds) {
  const realNow = Date.now;
  Date.now = () => realNow() + options.clockSeconds * 1000;
}

const resolve = createRequire(pathToFileURL(`${folder}/package.json`)).resolve;
const { Provider } = await import(pathToFileURL(resolve("oidc-provider")));

const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const signingKey = { ...privateKey.export({ format: "jwk" }), use: "sig", kid: options.key };

// The port is part of the issuer, so it must be known before the provider is made.
const server = createServer();
await new Promise((listens) => server.listen(options.port, "127.0.0.1", listens));
const issuer = `http://127.0.0.1:${server.address().port}`;

const shop = {
  client_id: "shop",
  client_secret: "a+secret/of=the client",
  redirect_uris: [options.redirectUri],
  post_logout_redirect_uris: [options.postLogoutUri],
  grant_types: ["authorization_code", "refresh_token"],
  response_types: ["code"],
  backchannel_logout_uri: options.backchannelUri,
  backchannel_logout_session_required: true,
};
const robot = {
  client_id: "robot",
  client_secret: "robot secret",
  redirect_uris: [],
  grant_types: ["client_credentials"],
  response_types: [],
};

const provider = new Provider(issuer, {
  clients: [shop, robot],
  jwks: { keys: [signingKey] },
  cookies: { keys: ["only-for-tests"] },
  claims: { openid: ["sub"], email: ["email"] },
  scopes: ["openid", "offline_access", "email", "read"],
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@shop.example` }),
  }),
  // Every login gets a refresh token, which each refresh replaces.
  issueRefreshToken: (_context, client) => client.grantTypeAllowed("refresh_token"),
  rotateRefreshToken: true,
  ttl: {
    AccessToken: () => options.accessSeconds,
    ClientCredentials: () => options.accessSeconds,
    AuthorizationCode: 60,
    IdToken: 600,
    Interaction: 600,
    Grant: 3600,
    RefreshToken: 3600,
    Session: 3600,
  },
  features: {
    backchannelLogout: { enabled: true },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    // Access tokens for this resource are signed, all others are opaque.
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: () => ({
        scope: "read",
        audience: "https://api.shop.example",
        accessTokenFormat: "jwt",
      }),
    },
  },
  // The library's own guard sends nothing to loopback addresses, where the tests listen.
  fetch: (url, { dispatcher, ...rest }) => fetch(url, rest),
});
provider.on("server_error", (_context, error) => console.error(error));
provider.on("backchannel.error", (_context, error) => console.error(error));
server.on("request", provider.callback());
console.log(issuer);
