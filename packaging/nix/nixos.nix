# A NixOS module: nixosModules.default of the flake. It installs Vix with its user
# units and D-Bus service; each user's config.toml is the user's own.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.programs.vix;
in
{
  options.programs.vix = {
    enable = lib.mkEnableOption "Vix, which runs programs in virtual machines of their own";
    package = lib.mkOption {
      type = lib.types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalExpression "the flake's own package";
      description = "The package of Vix.";
    };
    kvmUsers = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "alice" ];
      description = "Users who may use /dev/kvm. Without it VMs are emulated, and slow.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    systemd.packages = [ cfg.package ];
    services.dbus.packages = [ cfg.package ];
    users.groups.kvm.members = cfg.kvmUsers;
  };
}
