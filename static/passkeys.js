/* Passkeys: asks the device and sends what it answers with the form around the button. */
(function () {
  "use strict";
  function bytes(text) {
    var plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(plain, function (letter) { return letter.charCodeAt(0); });
  }
  function text(buffer) {
    var plain = String.fromCharCode.apply(null, new Uint8Array(buffer));
    return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }
  function known(list) {
    return (list || []).map(function (one) { return Object.assign({}, one, { id: bytes(one.id) }); });
  }
  function ask(act, options) {
    options.challenge = bytes(options.challenge);
    if (act === "create") {
      options.user.id = bytes(options.user.id);
      options.excludeCredentials = known(options.excludeCredentials);
      return navigator.credentials.create({ publicKey: options });
    }
    options.allowCredentials = known(options.allowCredentials);
    return navigator.credentials.get({ publicKey: options });
  }
  function told(made) {
    var response = { clientDataJSON: text(made.response.clientDataJSON) };
    ["attestationObject", "authenticatorData", "signature", "userHandle"].forEach(function (name) {
      if (made.response[name]) { response[name] = text(made.response[name]); }
    });
    if (made.response.getTransports) { response.transports = made.response.getTransports(); }
    return JSON.stringify({ id: made.id, rawId: text(made.rawId), type: made.type, response: response, clientExtensionResults: {} });
  }

  document.querySelectorAll("[data-passkey]").forEach(function (box) {
    var form = box.closest("form"), button = box.querySelector("button"), answer = box.querySelector("input");
    function show(what) { box.querySelector("[data-" + what + "]").hidden = false; }
    if (location.origin !== box.dataset.origin) { show("elsewhere"); return; }
    if (!window.PublicKeyCredential) { show("none"); return; }
    button.hidden = false;
    button.addEventListener("click", function () {
      var trouble = box.querySelector("[data-trouble]"), name = form.elements.name;
      trouble.hidden = true;
      /* The server says what is missing before the device makes anything. */
      if (name && !name.value.trim()) { form.requestSubmit(); return; }
      button.disabled = true;
      fetch(box.dataset.options, { method: "POST", body: new URLSearchParams({ csrf_token: form.elements.csrf_token.value }) })
        .then(function (reply) { return reply.json(); })
        .then(function (options) { return ask(box.dataset.passkey, options); })
        .then(function (made) {
          var same = form.querySelector("[data-same]");
          var other = same && document.querySelector("input[type=checkbox][name=" + same.dataset.same + "]");
          if (other && other.checked) { same.value = other.value; }
          answer.value = told(made);
          form.requestSubmit();
        })
        .catch(function () { trouble.hidden = false; })
        .then(function () { button.disabled = false; });
    });
  });
})();
