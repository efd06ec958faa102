"""Settings with libraries that a server cannot load: they would prevent connections.

Any role can choose local_preload_libraries. Sessions load them from one folder only (PostgreSQL
manual, "Shared Library Preloading"), and so does this test: it is run by a superuser.
"""

from __future__ import annotations

from postgres import pg_server, statements

# {0}: a condition on pg_db_role_setting and pg_database
_LIBRARIES = r"""
DO $$ DECLARE one record; library text; line text; BEGIN
  FOR one IN SELECT setdatabase, setrole, datname, rolname, pair.setting,
      split_part(pair.setting, '=', 1) AS name,
      substr(pair.setting, strpos(pair.setting, '=') + 1) AS libraries
      FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = setdatabase
      LEFT JOIN pg_catalog.pg_roles r ON r.oid = setrole, unnest(setconfig) AS pair(setting)
      WHERE pair.setting ~ '^(session|local)_preload_libraries=' AND {0} LOOP
    FOREACH library IN ARRAY string_to_array(one.libraries, ',') LOOP
      library := btrim(library, ' "');
      CONTINUE WHEN library = '';
      IF one.name = 'local_preload_libraries' AND strpos(library, '/') = 0 THEN
        library := '$libdir/plugins/' || library;
      END IF;
      BEGIN
        IF one.name = 'local_preload_libraries' AND library !~ '^\$libdir/plugins/[^/]+$' THEN
          RAISE EXCEPTION 'access to library "%" is not allowed', library;
        END IF;
        EXECUTE format('LOAD %L', library);
      EXCEPTION WHEN insufficient_privilege THEN
        CONTINUE;
      WHEN OTHERS THEN
        EXECUTE CASE WHEN one.setrole = 0 AND one.setdatabase <> 0
            THEN format('ALTER DATABASE %I RESET %I', one.datname, one.name)
          WHEN one.setrole = 0 THEN format('ALTER ROLE ALL RESET %I', one.name)
          WHEN one.setdatabase = 0 THEN format('ALTER ROLE %I RESET %I', one.rolname, one.name)
          ELSE format('ALTER ROLE %I IN DATABASE %I RESET %I', one.rolname, one.datname, one.name)
          END;
        line := format('setting %s of %s: %s', one.setting,
          coalesce('role ' || quote_ident(one.rolname), 'the database'), SQLERRM);
        RAISE WARNING 'nc-backup-py 0 %', encode(textsend(line), 'hex');
        EXIT;
      END;
    END LOOP;
  END LOOP;
END $$;
"""


def reset_unloadable(target: pg_server.PostgresConnection, database: str = "") -> tuple[str, ...]:
    """Reset settings with libraries that are missing; return a line for each.

    database: those in this database; "" for those of roles in all databases
    """
    condition = "setdatabase = 0"
    if database:
        condition = f"datname = {pg_server.text_expression(database)}"
    return tuple(statements.run_block(target, _LIBRARIES.replace("{0}", condition)))
