# A home-manager module: homeManagerModules.default of the flake. It installs Vix
# for one user, writes config.toml, and keeps VMs running in the session.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.programs.vix;
  toml = pkgs.formats.toml { };
  # As `systemctl --user enable vix@NAME` would.
  wants = name: {
    name = "systemd/user/graphical-session.target.wants/vix@${name}.service";
    value.source = "${cfg.package}/lib/systemd/user/vix@.service";
  };
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
    settings = lib.mkOption {
      inherit (toml) type;
      default = { };
      example = {
        defaults.memory = "768M";
        vm.web = {
          color = "red";
          programs = [ "firefox" ];
        };
      };
      description = "What config.toml holds; see vix-config.toml(5).";
    };
    keep = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "web" ];
      description = "VMs that run for as long as the graphical session lasts.";
    };
  };

  config = lib.mkIf cfg.enable {
    home.packages = [ cfg.package ];
    xdg.configFile =
      lib.optionalAttrs (cfg.settings != { }) {
        "vix/config.toml".source = toml.generate "config.toml" cfg.settings;
      }
      // builtins.listToAttrs (map wants cfg.keep);
  };
}
