# The package: the Makefile builds and installs, as for every distribution.
{
  lib,
  buildGoModule,
  autoPatchelfHook,
  makeWrapper,
  scdoc,
  libxkbcommon,
  mmdebstrap,
  passt,
  qemu,
  virtiofsd,
}:

buildGoModule rec {
  pname = "vix";
  version = lib.fileContents ../../VERSION;
  src = lib.cleanSource ../..;

  # Of the modules in go.sum. It cannot be computed without nixpkgs and a network:
  # the first `nix build` says the right one. PACKAGING.md has the steps.
  vendorHash = lib.fakeHash;

  nativeBuildInputs = [
    autoPatchelfHook
    makeWrapper
    scdoc
  ];
  # vix-menu opens it; everything else is static.
  runtimeDependencies = [ libxkbcommon ];

  buildPhase = ''
    runHook preBuild
    patchShebangs packaging scripts
    make docs VERSION=${version}
    runHook postBuild
  '';
  doCheck = false; # the tests want a compositor, QEMU and a kernel image
  installPhase = ''
    runHook preInstall
    PREFIX=$out packaging/install
    runHook postInstall
  '';
  postFixup = ''
    wrapProgram $out/bin/vix-launcher --suffix PATH : ${
      lib.makeBinPath [
        qemu
        virtiofsd
        passt
        mmdebstrap
      ]
    }
  '';

  meta = {
    description = "Run every program in a virtual machine of its own, with its windows on your desktop";
    license = lib.licenses.asl20;
    mainProgram = "vix";
    platforms = [ "x86_64-linux" ];
  };
}
